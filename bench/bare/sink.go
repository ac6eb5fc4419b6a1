//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

type sinkCmd struct {
	TCP   string        `help:"Connect to this loopback address and discard what comes." placeholder:"HOST:PORT" xor:"what"`
	UDP   bool          `help:"Print N loopback addresses, one port, and discard what comes to them on one socket." xor:"what"`
	Own   bool          `help:"With --udp: a socket for each address."`
	Join  string        `help:"Connect, ask, take the answer, over and over." placeholder:"HOST:PORT" xor:"what"`
	Ask   string        `help:"With --tcp: ask for this path as a WebSocket first." placeholder:"PATH"`
	TLS   bool          `help:"With --join or --ask: TLS 1.3 handshakes, full ones."`
	Curve string        `help:"With --tls: the one key exchange that is offered: x25519 or mlkem (default: crypto/tls's own choice)."`
	N     int           `default:"5000" help:"Sockets."`
	Beat  time.Duration `default:"5ms" help:"Look for what came so often, asleep between; 0: wait for it, so that senders pay for waking."`
	Many  int           `default:"64" help:"With --join: attempts under way at once."`
}

// Run serves until standard input ends, so that a parent that dies takes its sinks with it.
func (c *sinkCmd) Run() error {
	var over atomic.Bool
	go func() { // ends with the process: nothing can interrupt a read of standard input
		_, _ = io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	switch {
	case c.Join != "":
		addr, err := target(c.Join)
		if err != nil {
			return err
		}
		return c.join(addr, &over)
	case c.TCP != "":
		addr, err := target(c.TCP)
		if err != nil {
			return err
		}
		if c.Ask != "" {
			cfg := c.clientTLS()
			return c.drain(&over, func(i int) (int, error) { return c.push(i, c.TCP, cfg) })
		}
		return c.drain(&over, func(i int) (int, error) { return dial(i, addr) })
	case c.UDP && c.Own:
		return c.drain(&over, bindUDP)
	case c.UDP:
		return c.shared(&over)
	}
	return fmt.Errorf("one of --tcp, --udp and --join says what to be the other end of")
}

func target(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil || !a.Addr().IsLoopback() {
		return a, fmt.Errorf("target %q: want a loopback address and a port", s)
	}
	return a, nil
}

// dial connects, and from the kernel's view is done when it returns: on loopback that takes no time.
func dial(i int, to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket %d: %w", i, err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback(i / 10000).As4()}); err != nil {
		return 0, fmt.Errorf("bind %d: %w", i, err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return 0, fmt.Errorf("connect %d to %v: %w", i, to, err)
	}
	return fd, unix.SetNonblock(fd, true)
}

func bindUDP(i int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket %d: %w", i, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, fmt.Errorf("bind %d: %w", i, err)
	}
	addr, err := name(fd)
	if err != nil {
		return 0, err
	}
	say("%v", addr)
	return fd, nil
}

// drain opens N sockets and discards what comes, without copying it: TCP's MSG_TRUNC throws away in the kernel, and a datagram is cut
// to nothing.
func (c *sinkCmd) drain(over *atomic.Bool, open func(i int) (int, error)) error {
	runtime.LockOSThread()
	p, err := newPoll()
	if err != nil {
		return err
	}
	for i := range c.N {
		fd, err := open(i)
		if err != nil {
			return err
		}
		if err := p.add(fd, unix.EPOLLIN|unix.EPOLLET); err != nil {
			return fmt.Errorf("epoll of socket %d: %w", i, err)
		}
	}
	var buf [1]byte
	length := 1 << 20 // more than ever waits; nothing is copied
	if c.UDP {
		length = len(buf)
	}
	for left := c.N; left > 0 && !over.Load(); {
		some := p.wait(c.wait())
		if len(some) < len(p.events) {
			pause(c.Beat)
		}
		for _, e := range some {
			if !discard(int(e.Fd), &buf, length, c.UDP) {
				_ = unix.Close(int(e.Fd))
				left--
			}
		}
	}
	return nil
}

// shared is one socket for all destinations, told apart by the address in 127/8 that was sent to; so does the crowd.
func (c *sinkCmd) shared(over *atomic.Bool) error {
	runtime.LockOSThread()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	const room = 64 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room) // the kernel's limit is taken, then
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	at, err := name(fd)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for i := range c.N {
		fmt.Fprintln(out, netip.AddrPortFrom(loopback(i), at.Port()))
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print addresses: %w", err)
	}
	p, err := newPoll()
	if err != nil {
		return err
	}
	if err := p.add(fd, unix.EPOLLIN); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	in := newBatch(64, 1600)
	for !over.Load() {
		if p.wait(c.wait()) != nil {
			in.receive(fd)
		}
		pause(c.Beat)
	}
	return nil
}

// wait is how long to wait for something to come. A receiver that waits is woken by the sender, at the sender's cost; listeners are
// elsewhere, so ours look on a beat.
func (c *sinkCmd) wait() time.Duration {
	if c.Beat > 0 {
		return 0
	}
	return 100 * time.Millisecond
}
