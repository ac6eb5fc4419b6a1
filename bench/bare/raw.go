//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls go raw: on a non-blocking descriptor none of them waits, so the scheduler need not know of them.

// threadCPU is what the calling thread used so far, kernel's work for it included.
func threadCPU() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // a Linux without this clock can measure nothing
	}
	return time.Duration(t.Nano())
}

// processCPU is what all threads used so far.
func processCPU() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// pause sleeps in the kernel, on this thread. The runtime takes a thread in a raw call for one that computes too long and signals
// it, so a sleep is cut short now and then and goes on.
func pause(d time.Duration) {
	for until := time.Now().Add(d); d > 0; d = time.Until(until) {
		t := unix.NsecToTimespec(int64(d))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
	}
}

// write is one write of all of p; false if the socket would not take it whole.
func write(fd int, p []byte) bool {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return errno == 0 && int(n) == len(p)
}

// read takes what there is; 0 at the end, negative if nothing is there.
func read(fd int, p []byte) int {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno == unix.EAGAIN {
		return -1
	}
	if errno != 0 {
		return 0
	}
	return int(n)
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// batch is a vector for sendmmsg: packets of one size, each to an address of its own.
type batch struct {
	n    int
	hdrs []mmsghdr
	iovs []unix.Iovec
	bufs [][]byte
}

func newBatch(size, packet int) *batch {
	b := &batch{hdrs: make([]mmsghdr, size), iovs: make([]unix.Iovec, size), bufs: make([][]byte, size)}
	for i := range b.hdrs {
		b.bufs[i] = make([]byte, packet)
		b.iovs[i].Base = &b.bufs[i][0]
		b.hdrs[i].hdr.Iov = &b.iovs[i]
		b.hdrs[i].hdr.SetIovlen(1)
		b.hdrs[i].hdr.Namelen = unix.SizeofSockaddrInet4
	}
	return b
}

// add gives the place of the next packet, n bytes to be filled in.
func (b *batch) add(to *unix.RawSockaddrInet4, n int) []byte {
	i := b.n
	b.n++
	b.hdrs[i].hdr.Name = (*byte)(unsafe.Pointer(to))
	b.iovs[i].SetLen(n)
	return b.bufs[i][:n]
}

func (b *batch) full() bool { return b.n == len(b.hdrs) }

// send gives how many packets the kernel took.
func (b *batch) send(fd int) int {
	sent := 0
	for sent < b.n {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.hdrs[sent])), uintptr(b.n-sent), 0, 0, 0)
		if errno != 0 {
			break
		}
		sent += int(n)
	}
	b.n = 0
	return sent
}

// receive takes all packets that wait and forgets them.
func (b *batch) receive(fd int) {
	for i := range b.hdrs {
		b.hdrs[i].hdr.Name, b.hdrs[i].hdr.Namelen = nil, 0
		b.iovs[i].SetLen(len(b.bufs[i]))
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.hdrs[0])), uintptr(len(b.hdrs)), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 || int(n) < len(b.hdrs) {
			return
		}
	}
}

func sockaddr(a netip.AddrPort) unix.RawSockaddrInet4 {
	port := a.Port()
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8, Addr: a.Addr().As4()}
}

// loopback is the i-th source address of ours: one address has too few ports for what a machine can hold.
func loopback(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 0, 1 + byte(i/250), 1 + byte(i%250)})
}

// listen opens a TCP socket on a free port of loopback, with as long a queue as the kernel gives.
func listen() (fd int, addr netip.AddrPort, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, addr, fmt.Errorf("socket: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, addr, fmt.Errorf("bind: %w", err)
	}
	if err = unix.Listen(fd, 65535); err != nil {
		return 0, addr, fmt.Errorf("listen: %w", err)
	}
	addr, err = name(fd)
	return fd, addr, err
}

func name(fd int) (netip.AddrPort, error) {
	a, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("socket's name: %w", err)
	}
	v4, ok := a.(*unix.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("socket's name: not IPv4")
	}
	return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), uint16(v4.Port)), nil
}

// poll is an epoll instance.
type poll struct {
	fd     int
	events [512]unix.EpollEvent
}

func newPoll() (*poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &poll{fd: fd}, nil
}

func (p *poll) add(fd int, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// wait gives the descriptors that something happened to, within limit.
func (p *poll) wait(limit time.Duration) []unix.EpollEvent {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_WAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), uintptr(limit.Milliseconds()), 0, 0)
	if errno != 0 {
		return nil
	}
	return p.events[:n]
}

// discard takes all that waits; false at the end of the stream. A stream's bytes are thrown away uncopied (tcp(7), MSG_TRUNC), so
// length may exceed the buffer there.
func discard(fd int, buf *[1]byte, length int, datagrams bool) bool {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(length),
			unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			return true
		case errno != 0 || n == 0 && !datagrams:
			return false
		case !datagrams && int(n) < length:
			return true // edge-triggered: what comes later is told anew
		}
	}
}
