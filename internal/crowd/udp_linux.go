package crowd

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many packets one system call reads.
const batch = 64

// packetSize is the most that is read of one packet; no path carries more.
const packetSize = 1600

// datagrams takes packets from a socket: to is the address they were sent to, at when the kernel got them.
type datagrams interface {
	datagram(s *udpSocket, from netip.AddrPort, to netip.Addr, at int64, b []byte)
}

// udpSocket is a UDP socket in the loop. On loopback one serves all WebRTC listeners of a process: it is bound to no address, each
// listener sends from one of its own in 127/8, and what comes back is told apart by where it was sent to.
type udpSocket struct {
	loop  *loop
	fd    int
	to    datagrams
	v6    bool
	drops uint32 // by the kernel, because the crowd read too late
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// inbox is what recvmmsg writes to. The loop's sockets share one, as each packet is dealt with before the next call.
type inbox struct {
	msgs  [batch]mmsghdr
	iovs  [batch]unix.Iovec
	names [batch]unix.RawSockaddrInet6 // holds an IPv4 address too
	ctl   [batch][96]byte
	bufs  [batch][packetSize]byte
}

func newInbox() *inbox {
	in := &inbox{}
	for i := range in.msgs {
		in.iovs[i].Base = &in.bufs[i][0]
		in.iovs[i].SetLen(packetSize)
		h := &in.msgs[i].hdr
		h.Iov = &in.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		h.Control = &in.ctl[i][0]
	}
	return in
}

// listenUDP opens a socket for packets from and to where.
func (l *loop) listenUDP(to datagrams, v6 bool) (*udpSocket, error) {
	family := unix.AF_INET
	var any unix.Sockaddr = &unix.SockaddrInet4{}
	if v6 {
		family, any = unix.AF_INET6, &unix.SockaddrInet6{}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a UDP socket: %w", err)
	}
	s := &udpSocket{loop: l, fd: fd, to: to, v6: v6}
	const room = 64 << 20 // a second of 20,000 listeners' packets at 60 ms
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room) // the kernel's limit is taken, then
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	if !v6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err == nil {
		err = unix.Bind(fd, any)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up a UDP socket: %w", err)
	}
	if l.in == nil {
		l.in = newInbox()
	}
	if err := l.add(fd, unix.EPOLLIN, s); err != nil {
		l.forget(fd)
		return nil, fmt.Errorf("watch a UDP socket: %w", err)
	}
	return s, nil
}

// port is the socket's own.
func (s *udpSocket) port() uint16 {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return 0
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port)
	case *unix.SockaddrInet6:
		return uint16(sa.Port)
	}
	return 0
}

func (s *udpSocket) ready(uint32) {
	in := s.loop.in
	for range 16 { // then the others' turn; what is left makes the socket ready again
		for i := range in.msgs {
			in.msgs[i].hdr.Namelen = uint32(unsafe.Sizeof(in.names[i]))
			in.msgs[i].hdr.SetControllen(len(in.ctl[i]))
		}
		n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&in.msgs[0])), batch, unix.MSG_DONTWAIT, 0, 0)
		if e != 0 {
			return // EAGAIN; or ECONNREFUSED, an ICMP error of some listener's, which its consent check will notice
		}
		s.loop.clock()
		for i := range int(n) {
			m := &in.msgs[i]
			to, at := s.control(in.ctl[i][:m.hdr.Controllen])
			if at == 0 || at > s.loop.now || at < s.loop.now-int64(1e9) {
				at = s.loop.now
			}
			s.to.datagram(s, s.from(&in.names[i]), to, at, in.bufs[i][:m.len])
		}
		if n < batch {
			return
		}
	}
}

func (s *udpSocket) from(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if s.v6 {
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), port)
	}
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
	return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
}

// control reads the two control messages that were asked for: the address that a packet was sent to, and when it came.
func (s *udpSocket) control(b []byte) (to netip.Addr, at int64) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			return to, at
		}
		data := b[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			to = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Addr)
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_TIMESTAMPNS && len(data) >= 16:
			ts := (*unix.Timespec)(unsafe.Pointer(&data[0]))
			at = ts.Nano() - s.loop.wall
		}
		if n = (n + 7) &^ 7; n >= len(b) {
			return to, at
		}
		b = b[n:]
	}
	return to, at
}

// send sends a packet from an address of this machine; an invalid one leaves the choice to the kernel. It may be called from any
// goroutine. What the kernel does not take is lost, as packets may be.
func (s *udpSocket) send(from netip.Addr, to netip.AddrPort, b []byte) {
	if from.Is4() {
		var oob [32]byte // CMSG_SPACE of a struct in_pktinfo
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&oob[unix.CmsgLen(0)]))
		info.Spec_dst = from.As4()
		_, _ = unix.SendmsgN(s.fd, b, oob[:unix.CmsgSpace(unix.SizeofInet4Pktinfo)], sockaddr(to), unix.MSG_DONTWAIT)
		return
	}
	_ = unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, sockaddr(to))
}

// lost is how many packets the kernel threw away since it was last asked, because they were read too late.
func (s *udpSocket) lost() uint32 {
	var info [9]uint32 // SK_MEMINFO_*; the last is the drops
	size := uint32(unsafe.Sizeof(info))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0
	}
	n := info[8] - s.drops
	s.drops = info[8]
	return n
}
