package whep

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// speakers is the socket as the library sees it, which serves the speakers: what is not listeners' is queued for it, and what it sends goes
// out. An address that it sent something to is a speaker's, since to others it does not speak before they passed STUN's integrity check.
type speakers struct {
	sock   *socket
	queue  chan *datagram // from speakers
	first  chan *datagram // checks from strangers, who may become speakers
	pool   sync.Pool
	closed chan struct{}
	once   sync.Once

	mu    sync.RWMutex
	known map[where]*atomic.Int64 // when it was last sent to, in unix seconds
}

type datagram struct {
	from where
	n    int
	buf  [packetMax]byte
}

const (
	speakersQueue = 512              // datagrams: ten speakers' packets of a second; then the newest is dropped, as the kernel would
	strangerQueue = 32               // checks, which come again; a flood of them must not take the speakers' room
	speakersKnown = 1 << 14          // addresses
	speakersFor   = 60 * time.Second // an address that nothing was sent to for so long is a stranger's again
)

func newSpeakers(sock *socket) *speakers {
	s := &speakers{
		sock: sock, queue: make(chan *datagram, speakersQueue), first: make(chan *datagram, strangerQueue), closed: make(chan struct{}), known: make(map[where]*atomic.Int64),
	}
	s.pool.New = func() any { return new(datagram) }
	return s
}

// push queues a datagram.
func (s *speakers) push(b []byte, from where) {
	queue, why := s.queue, crowded
	if !s.knows(from) {
		queue, why = s.first, knocking
	}
	d := s.pool.Get().(*datagram)
	d.from, d.n = from, copy(d.buf[:], b)
	select {
	case queue <- d:
	default:
		s.pool.Put(d)
		s.sock.stray[why].Add(1)
	}
}

// knows says whether an address is a speaker's.
func (s *speakers) knows(from where) bool {
	s.mu.RLock()
	last := s.known[from]
	s.mu.RUnlock()
	return last != nil && time.Now().Unix()-last.Load() <= int64(speakersFor/time.Second)
}

// note remembers that something was sent to an address.
func (s *speakers) note(to where) {
	now := time.Now().Unix()
	s.mu.RLock()
	last := s.known[to]
	s.mu.RUnlock()
	if last != nil {
		last.Store(now)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for w, last := range s.known { // a newcomer is rare, and speakers are few
		if now-last.Load() > int64(speakersFor/time.Second) {
			delete(s.known, w)
		}
	}
	if len(s.known) < speakersKnown {
		last = &atomic.Int64{}
		last.Store(now)
		s.known[to] = last
	}
}

// ReadFromAddrPort is ice.AddrPortReaderWriter.
func (s *speakers) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	var d *datagram
	select {
	case d = <-s.queue:
	default:
		select {
		case d = <-s.queue:
		case d = <-s.first:
		case <-s.closed:
			return 0, netip.AddrPort{}, net.ErrClosed
		}
	}
	n, from := copy(b, d.buf[:d.n]), s.sock.addr(d.from)
	s.pool.Put(d)
	return n, from, nil
}

// WriteToAddrPort is ice.AddrPortReaderWriter.
func (s *speakers) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	s.note(whereOf(to))
	return s.sock.WriteToUDPAddrPort(b, to)
}

// ReadFrom is net.PacketConn.
func (s *speakers) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.ReadFromAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo is net.PacketConn.
func (s *speakers) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, os.ErrInvalid
	}
	return s.WriteToAddrPort(b, u.AddrPort())
}

// Close is net.PacketConn.
func (s *speakers) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// LocalAddr is net.PacketConn.
func (s *speakers) LocalAddr() net.Addr { return s.sock.LocalAddr() }

// SetDeadline is net.PacketConn. Reading ends with Close, and writing never waits for long.
func (s *speakers) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is net.PacketConn.
func (s *speakers) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is net.PacketConn.
func (s *speakers) SetWriteDeadline(time.Time) error { return nil }
