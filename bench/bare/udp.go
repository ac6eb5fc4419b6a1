//go:build linux

package main

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

type udpCmd struct {
	N        int           `default:"2000" help:"Destinations; their addresses are read from standard input, a line each."`
	Interval time.Duration `default:"20ms" help:"Between two packets to the same destination, which is also how much sound a packet holds."`
	Slots    int           `default:"0" help:"Spread the destinations over the interval in so many slots; 0: one each 2 ms, 1: all at its start."`
	Batch    int           `default:"64" help:"Packets per system call."`
	Warm     time.Duration `default:"2s" help:"Before it is measured."`
	Hold     time.Duration `default:"10s" help:"What is measured."`
}

const (
	rtpHeader = 12
	gcmTag    = 16
)

// peer is what SRTP needs to know of a destination: its keys, and where it is in the sequence.
type peer struct {
	to   unix.RawSockaddrInet4
	aead cipher.AEAD
	salt [12]byte
	ssrc uint32
	seq  uint16
	roc  uint32
	ts   uint32
}

func newPeer(i int, to netip.AddrPort) (*peer, error) {
	p := &peer{to: sockaddr(to), ssrc: uint32(i) * 2654435761, seq: uint16(i * 7919)}
	key := make([]byte, 16)
	binary.BigEndian.PutUint64(key, uint64(i)+1)
	binary.BigEndian.PutUint64(p.salt[4:], uint64(i)*0x9e3779b97f4a7c15)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("key of destination %d: %w", i, err)
	}
	if p.aead, err = cipher.NewGCM(block); err != nil {
		return nil, fmt.Errorf("key of destination %d: %w", i, err)
	}
	return p, nil
}

// seal writes the next packet into out: RTP header in the clear, payload encrypted (RFC 7714, 8.1 and 9.1).
func (p *peer) seal(out, payload []byte, samples uint32) {
	head := out[:rtpHeader]
	head[0], head[1] = 0x80, 111
	binary.BigEndian.PutUint16(head[2:], p.seq)
	binary.BigEndian.PutUint32(head[4:], p.ts)
	binary.BigEndian.PutUint32(head[8:], p.ssrc)
	var nonce [12]byte
	binary.BigEndian.PutUint32(nonce[2:], p.ssrc)
	binary.BigEndian.PutUint32(nonce[6:], p.roc)
	binary.BigEndian.PutUint16(nonce[10:], p.seq)
	for i, b := range p.salt {
		nonce[i] ^= b
	}
	p.aead.Seal(out[rtpHeader:rtpHeader], nonce[:], payload, head)
	p.ts += samples
	if p.seq++; p.seq == 0 {
		p.roc++
	}
}

// Run reads where to send, and sends.
func (c *udpCmd) Run() error {
	runtime.LockOSThread()
	peers := make([]*peer, 0, c.N)
	for in := bufio.NewScanner(os.Stdin); len(peers) < c.N; {
		if !in.Scan() {
			return fmt.Errorf("standard input has %d addresses, want %d", len(peers), c.N)
		}
		to, err := netip.ParseAddrPort(in.Text())
		if err != nil || !to.Addr().IsLoopback() {
			return fmt.Errorf("destination %q: want a loopback address and a port", in.Text())
		}
		p, err := newPeer(len(peers), to)
		if err != nil {
			return err
		}
		peers = append(peers, p)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	if c.Slots == 0 {
		c.Slots = int(c.Interval / (2 * time.Millisecond))
	}
	// 32 kbit/s; a packet of several frames has a byte or two more, which is neglected here.
	payload := make([]byte, int(4000*c.Interval/time.Second))
	samples := uint32(48000 * c.Interval / time.Second)
	size := rtpHeader + len(payload) + gcmTag
	b := newBatch(c.Batch, size)
	r := result{Loop: "udp", Listeners: c.N}
	per := (c.N + c.Slots - 1) / c.Slots
	m := rounds(c.Interval, c.Warm, c.Hold, c.Slots, func(slot int) {
		of := peers[min(slot*per, c.N):min((slot+1)*per, c.N)]
		for _, p := range of {
			p.seal(b.add(&p.to, size), payload, samples)
			if b.full() {
				n := b.n
				r.Failed += int64(n - b.send(fd))
			}
		}
		n := b.n
		r.Failed += int64(n - b.send(fd))
	})
	m.into(&r)
	return r.tell()
}
