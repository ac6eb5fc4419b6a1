//go:build !unix

package whep

import (
	"encoding/binary"
	"net"
	"sync"
)

// streamQueue is how many bytes wait for the goroutine that writes: what is sent to one listener at once. The kernel has room for more.
const streamQueue = 16 << 10

// streamSys hands what is written to a goroutine, since the system has no call that surely does not wait.
type streamSys struct {
	conn *net.TCPConn
	wg   sync.WaitGroup
	wake chan struct{}

	mu    sync.Mutex
	queue []byte // whole frames
	ended bool   // nothing more comes
}

func (s *streamSys) init(conn *net.TCPConn) error {
	s.conn, s.wake = conn, make(chan struct{}, 1)
	s.wg.Go(s.run)
	return nil
}

func (s *streamSys) write(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.queue)+2+len(b) > streamQueue {
		return false
	}
	s.queue = append(binary.BigEndian.AppendUint16(s.queue, uint16(len(b))), b...)
	s.poke()
	return true
}

func (s *streamSys) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes until the end, or the connection's.
func (s *streamSys) run() {
	var out []byte
	for range s.wake {
		s.mu.Lock()
		out, s.queue = s.queue, out[:0]
		ended := s.ended
		s.mu.Unlock()
		if len(out) > 0 {
			if _, err := s.conn.Write(out); err != nil {
				break
			}
		}
		if ended { // before which the last was queued
			break
		}
	}
	s.end()
	_ = s.conn.CloseWrite()
}

// end closes our side after what was written.
func (s *streamSys) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.poke()
}

// close closes the connection and waits for the goroutine.
func (s *streamSys) close() {
	_ = s.conn.Close()
	s.end()
	s.wg.Wait()
}
