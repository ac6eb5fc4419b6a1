//go:build linux

package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

type tcpCmd struct {
	N        int           `default:"5000" help:"Sockets."`
	Interval time.Duration `default:"1s" help:"Between two writes to the same socket."`
	Bytes    int           `default:"0" help:"Of a write; 0: what 32 kbit/s make in an interval."`
	Slots    int           `default:"1" help:"Spread the sockets over the interval in so many slots; 1: all at its start."`
	Warm     time.Duration `default:"2s" help:"Before it is measured."`
	Hold     time.Duration `default:"10s" help:"What is measured."`
}

// Run listens, says where, accepts N connections and writes. What it sends means nothing; its length is the programme's.
func (c *tcpCmd) Run() error {
	runtime.LockOSThread()
	l, addr, err := listen()
	if err != nil {
		return err
	}
	say("listening %v", addr)
	socks := make([]int, 0, c.N)
	for deadline := time.Now().Add(time.Minute); len(socks) < c.N; {
		fd, _, err := unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			socks = append(socks, fd)
		case err != unix.EAGAIN:
			return fmt.Errorf("accept: %w", err)
		case time.Now().After(deadline):
			return fmt.Errorf("only %d of %d sockets came within a minute", len(socks), c.N)
		default:
			pause(time.Millisecond)
		}
	}
	if c.Bytes == 0 {
		c.Bytes = int(4000 * c.Interval / time.Second)
	}
	chunk := make([]byte, c.Bytes)
	r := result{Loop: "tcp", Listeners: c.N}
	per := (c.N + c.Slots - 1) / max(1, c.Slots)
	m := rounds(c.Interval, c.Warm, c.Hold, c.Slots, func(slot int) {
		for _, fd := range socks[min(slot*per, c.N):min((slot+1)*per, c.N)] {
			if !write(fd, chunk) {
				r.Failed++
			}
		}
	})
	m.into(&r)
	return r.tell()
}
