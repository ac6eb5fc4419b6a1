//go:build unix

package whep

import (
	"encoding/binary"
	"net"
	"syscall"
)

// streamSys writes to the kernel at once. What does not go out whole keeps its rest, and until that is out packets are dropped. stream.mu
// guards it.
type streamSys struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	buf  []byte
	rest []byte // of buf
	n    int
	err  error
	call func(fd uintptr)
}

func (s *streamSys) init(conn *net.TCPConn) (err error) {
	s.conn = conn
	s.call = func(fd uintptr) { s.n, s.err = syscall.Write(int(fd), s.rest) }
	s.raw, err = conn.SyscallConn()
	return err
}

func (s *streamSys) write(b []byte) bool {
	if len(s.rest) > 0 && !s.push() {
		return false
	}
	s.buf = append(binary.BigEndian.AppendUint16(s.buf[:0], uint16(len(b))), b...)
	s.rest = s.buf
	if s.push() {
		return true
	}
	if len(s.rest) == len(s.buf) { // nothing went out, so nothing is missed
		s.rest = nil
		return false
	}
	return true
}

// push sends what it can of the rest, and says whether that was all.
func (s *streamSys) push() bool {
	for len(s.rest) > 0 {
		if s.raw.Control(s.call) != nil {
			return false
		}
		if s.err == syscall.EINTR { //nolint:errorlint // a system call gives it bare
			continue
		}
		if s.err != nil || s.n <= 0 {
			return false
		}
		s.rest = s.rest[s.n:]
	}
	return true
}

// end closes our side.
func (s *streamSys) end() { _ = s.conn.CloseWrite() }

func (s *streamSys) close() { _ = s.conn.Close() }
