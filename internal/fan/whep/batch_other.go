//go:build !linux

package whep

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Elsewhere each datagram is a call of its own: slower, and otherwise the same, but that a full socket may be waited for.

type socketSys struct{}

func (socketSys) init(*net.UDPConn) error { return nil }

type sendSys struct{}

func (sendSys) init(*outbox) {}

func (sendSys) send(o *outbox) {
	for i := range o.n {
		switch _, err := o.sock.WriteToUDPAddrPort(o.buf[i][:o.size[i]], o.sock.addr(o.to[i])); {
		case err == nil:
		case errors.Is(err, syscall.ENOBUFS):
			o.full.Add(1)
		default:
			o.unreachable.Add(1)
		}
	}
}

type readSys struct{}

func (readSys) init(*inbox) {}

// failuresAtOnce is how many calls may fail in a row before reading pauses. One datagram of a stranger's, or the answer to one of ours,
// fails a call at most, and must not hold up the others.
const failuresAtOnce = 64

// read waits for a datagram. The only error is that the socket was closed.
func (in *inbox) read() (int, error) {
	for failed := 1; ; failed++ {
		n, from, err := in.sock.ReadFromUDPAddrPort(in.buf[0][:])
		switch {
		case err == nil:
			if n == packetMax {
				n = 0 // longer than anything that belongs here
			}
			in.from[0], in.size[0] = whereOf(from), n
			return 1, nil
		case errors.Is(err, net.ErrClosed):
			return 0, err
		case failed%failuresAtOnce == 0:
			time.Sleep(time.Millisecond)
		}
	}
}

func bigBuffers(u *net.UDPConn, bytes int) {
	_ = u.SetReadBuffer(bytes)
	_ = u.SetWriteBuffer(bytes)
}
