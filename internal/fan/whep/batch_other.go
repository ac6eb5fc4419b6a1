//go:build !linux

package whep

import (
	"net"
	"time"
)

// Elsewhere each datagram is a call of its own: slower, and otherwise the same.

type sendSys struct{}

func (*sendSys) init(*outbox) {}

func (*sendSys) send(o *outbox) {
	for i := range o.n {
		if _, err := o.sock.WriteToUDPAddrPort(o.buf[i][:o.size[i]], o.to[i].addr()); err != nil {
			o.unreachable.Add(1)
		}
	}
}

type readSys struct{}

func (*readSys) init(*inbox) {}

func (in *inbox) read() (int, error) {
	for {
		n, from, err := in.sock.ReadFromUDPAddrPort(in.buf[0][:])
		if err != nil {
			if in.sock.closed.Load() {
				return 0, err
			}
			time.Sleep(time.Millisecond)
			continue
		}
		in.from[0], in.size[0] = whereOf(from), n
		return 1, nil
	}
}

func bigBuffers(u *net.UDPConn, bytes int) {
	_ = u.SetReadBuffer(bytes)
	_ = u.SetWriteBuffer(bytes)
}
