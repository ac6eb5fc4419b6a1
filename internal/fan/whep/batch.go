package whep

import (
	"sync/atomic"
)

// Sizes of what goes over the socket in one system call. A call costs a microsecond and a packet three, so more per call gains little.
const (
	sendBatch = 64
	readBatch = 32
	packetMax = 2048 // bytes; a frame of 1276 bytes with its headers, or its repetition before it
)

// outbox collects datagrams and sends many with one system call. It belongs to one goroutine, and holds all the memory that sending
// needs: packets are sealed in place in its buffers.
type outbox struct {
	sock *socket
	n    int
	to   [sendBatch]where
	size [sendBatch]int
	buf  [sendBatch][packetMax]byte

	full        *atomic.Uint64 // counts what the socket's buffer had no room for
	unreachable *atomic.Uint64 // counts what the kernel refused otherwise
	sys         sendSys
}

func newOutbox(sock *socket, full, unreachable *atomic.Uint64) *outbox {
	o := &outbox{sock: sock, full: full, unreachable: unreachable}
	o.sys.init(o)
	return o
}

// next gives the buffer of the next datagram. put says that it is filled.
func (o *outbox) next() []byte {
	if o.n == sendBatch {
		o.flush()
	}
	return o.buf[o.n][:]
}

func (o *outbox) put(n int, to where) {
	if n == 0 {
		return
	}
	o.to[o.n], o.size[o.n] = to, n
	o.n++
}

// flush sends all. What the kernel does not take is dropped and counted: waiting would make everybody late.
func (o *outbox) flush() {
	if o.n == 0 {
		return
	}
	o.sys.send(o)
	o.n = 0
}

// inbox receives many datagrams with one system call. It belongs to one goroutine.
type inbox struct {
	sock *socket
	from [readBatch]where
	size [readBatch]int
	buf  [readBatch][packetMax]byte
	sys  readSys
}

func newInbox(sock *socket) *inbox {
	in := &inbox{sock: sock}
	in.sys.init(in)
	return in
}
