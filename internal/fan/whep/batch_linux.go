package whep

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketSys is what the calls below want to know of the socket.
type socketSys struct {
	raw syscall.RawConn
	six bool // of IPv6's family, which carries IPv4 too
}

func (s *socketSys) init(u *net.UDPConn) (err error) {
	if s.raw, err = u.SyscallConn(); err != nil {
		return err
	}
	return s.raw.Control(func(fd uintptr) {
		if name, err := syscall.Getsockname(int(fd)); err == nil {
			_, s.six = name.(*syscall.SockaddrInet6)
		}
	})
}

// header is struct mmsghdr.
type header struct {
	msg  syscall.Msghdr
	size uint32
	_    [4]byte // to a multiple of eight, which is nothing on 32 bits
}

// sendSys is what sendmmsg(2) wants, laid out once.
type sendSys struct {
	headers [sendBatch]header
	iovs    [sendBatch]syscall.Iovec
	names   [sendBatch]syscall.RawSockaddrInet6
	begin   int
	done    int
	errno   syscall.Errno
	call    func(fd uintptr)
}

func (s *sendSys) init(o *outbox) {
	for i := range s.headers {
		s.iovs[i].Base = &o.buf[i][0]
		s.headers[i].msg.Iov = &s.iovs[i]
		s.headers[i].msg.Iovlen = 1
		s.headers[i].msg.Name = (*byte)(unsafe.Pointer(&s.names[i]))
	}
	s.call = func(fd uintptr) {
		n, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.headers[s.begin])), uintptr(o.n-s.begin),
			syscall.MSG_DONTWAIT, 0, 0)
		s.done, s.errno = int(n), errno
	}
}

func (s *sendSys) send(o *outbox) {
	for i := range o.n {
		s.iovs[i].SetLen(o.size[i])
		s.headers[i].msg.Namelen = putName(&s.names[i], o.to[i], o.sock.sys.six)
	}
	for s.begin = 0; s.begin < o.n; {
		s.errno = 0
		// Control takes no lock, unlike Write: several shards may be in the kernel at once.
		if o.sock.sys.raw.Control(s.call) != nil {
			o.unreachable.Add(uint64(o.n - s.begin)) // closed
			return
		}
		switch s.errno {
		case 0:
			s.begin += s.done
		case syscall.EINTR:
		case syscall.EAGAIN, syscall.ENOBUFS:
			o.full.Add(uint64(o.n - s.begin))
			return
		default: // this one cannot be sent; the others can
			o.unreachable.Add(1)
			s.begin++
		}
	}
}

// putName writes an address as the socket's family has it.
func putName(n *syscall.RawSockaddrInet6, to where, six bool) (size uint32) {
	port := to.port<<8 | to.port>>8 // network order; every system that Go runs Linux on natively here is little-endian but s390x
	if bigEndian {
		port = to.port
	}
	if six {
		*n = syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: port, Addr: to.ip, Scope_id: to.zone}
		return syscall.SizeofSockaddrInet6
	}
	four := (*syscall.RawSockaddrInet4)(unsafe.Pointer(n))
	*four = syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: port, Addr: [4]byte(to.ip[12:])}
	return syscall.SizeofSockaddrInet4
}

var bigEndian = func() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 0
}()

func readName(n *syscall.RawSockaddrInet6) (w where) {
	port := n.Port // at the same place in both
	if !bigEndian {
		port = port<<8 | port>>8
	}
	w.port = port
	if n.Family == syscall.AF_INET6 {
		w.ip = n.Addr
		if n.Addr[0] == 0xfe && n.Addr[1]&0xc0 == 0x80 {
			w.zone = n.Scope_id
		}
		return w
	}
	w.ip[10], w.ip[11] = 0xff, 0xff
	four := (*syscall.RawSockaddrInet4)(unsafe.Pointer(n))
	copy(w.ip[12:], four.Addr[:])
	return w
}

// readSys is what recvmmsg(2) wants.
type readSys struct {
	headers [readBatch]header
	iovs    [readBatch]syscall.Iovec
	names   [readBatch]syscall.RawSockaddrInet6
	n       int
	errno   syscall.Errno
	call    func(fd uintptr) bool
}

func (s *readSys) init(in *inbox) {
	for i := range s.headers {
		s.iovs[i].Base = &in.buf[i][0]
		s.iovs[i].SetLen(packetMax)
		s.headers[i].msg.Iov = &s.iovs[i]
		s.headers[i].msg.Iovlen = 1
		s.headers[i].msg.Name = (*byte)(unsafe.Pointer(&s.names[i]))
	}
	s.call = func(fd uintptr) bool {
		for i := range s.headers {
			s.headers[i].msg.Namelen = syscall.SizeofSockaddrInet6
		}
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&s.headers[0])), readBatch, syscall.MSG_DONTWAIT, 0, 0)
		s.n, s.errno = int(n), errno
		return errno != syscall.EAGAIN
	}
}

// read waits for datagrams and gives how many came. The only error is that the socket was closed.
func (in *inbox) read() (int, error) {
	s := &in.sys
	for {
		if err := in.sock.sys.raw.Read(s.call); err != nil {
			return 0, err
		}
		if s.errno != 0 {
			continue // what an earlier datagram of ours ran into, or a signal
		}
		for i := range s.n {
			in.from[i], in.size[i] = readName(&s.names[i]), int(s.headers[i].size)
			if s.headers[i].msg.Flags&syscall.MSG_TRUNC != 0 {
				in.size[i] = 0 // longer than anything that belongs here
			}
		}
		return s.n, nil
	}
}

// bigBuffers asks for room for a crowd's packets; a privileged process gets it beyond the system's limit.
func bigBuffers(u *net.UDPConn, bytes int) {
	_ = u.SetReadBuffer(bytes)
	_ = u.SetWriteBuffer(bytes)
	if raw, err := u.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, unix.SO_SNDBUFFORCE, bytes)
		})
	}
}
