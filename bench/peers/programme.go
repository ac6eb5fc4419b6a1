//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"earshot/internal/demo"
	"earshot/internal/mix"
)

// programme is what all servers give: the demo's two voices at 32 kbit/s, mono, packets of 20 ms, over and over. Earshot mixes and
// encodes it itself; the others are fed with these packets.
type programme [][]byte

const frameTime = 20 * time.Millisecond

// makeProgramme encodes a round of the two voices, with the encoder and the seed of Earshot's demo.
func makeProgramme() (programme, error) {
	enc, err := mix.NewEncoder(0)
	if err != nil {
		return nil, err
	}
	a, c := demo.Pair(1)
	one, two, buf := make([]float32, 960), make([]float32, 960), make([]byte, 1500)
	var p programme
	for n := range uint64(450) { // a round: 9 s
		a.Frame(n, one)
		c.Frame(n, two)
		for i := range one {
			one[i] += two[i]
		}
		k, err := enc.Encode(one, buf)
		if err != nil {
			return nil, err
		}
		p = append(p, append([]byte(nil), buf[:k]...))
	}
	return p, nil
}

// bitrate is the mean, in bit/s.
func (p programme) bitrate() float64 {
	n := 0
	for _, f := range p {
		n += len(f)
	}
	return float64(n*8) / (float64(len(p)) * frameTime.Seconds())
}

// feeder gives the programme to a server until it is stopped.
type feeder struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (f *feeder) stop() {
	if f != nil {
		f.cancel()
		f.done.Wait()
	}
}

// feed calls each with the next `many` frames whenever they are due.
func (p programme) feed(ctx context.Context, many int, each func(first int, frames [][]byte) error) *feeder {
	ctx, cancel := context.WithCancel(ctx)
	f := &feeder{cancel: cancel}
	f.done.Go(func() {
		begun := time.Now()
		frames := make([][]byte, many)
		for n := 0; ; n += many {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(begun.Add(time.Duration(n+many) * frameTime))):
			}
			for i := range frames {
				frames[i] = p[(n+i)%len(p)]
			}
			if each(n, frames) != nil {
				return // the server is gone; what is measured then says so
			}
		}
	})
	return f
}

// ogg writes the programme to an Icecast as its source, with a page per so many frames.
func (p programme) ogg(ctx context.Context, addr, mount, password string, many int) (*feeder, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("feed %s: %w", addr, err)
	}
	_, err = fmt.Fprintf(conn, "SOURCE %s HTTP/1.0\r\nAuthorization: Basic %s\r\nContent-Type: application/ogg\r\nice-public: 0\r\n\r\n", mount, password)
	if err == nil {
		answer := make([]byte, 512)
		var n int
		if n, err = conn.Read(answer); err == nil && !strings.Contains(string(answer[:n]), "200") {
			err = fmt.Errorf("the source was refused: %q", answer[:n])
		}
	}
	o := oggStream{w: conn}
	if err == nil {
		err = o.begin()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("feed %s: %w", addr, err)
	}
	f := p.feed(ctx, many, func(first int, frames [][]byte) error { return o.page(uint64(first+len(frames))*960, frames) })
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	cancel := f.cancel
	f.cancel = func() {
		cancel()
		_ = conn.Close()
	}
	return f, nil
}

// rtp sends the programme to a loopback port as RTP, 20 ms a packet.
func (p programme) rtp(ctx context.Context, to string) (*feeder, error) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return nil, fmt.Errorf("feed %s: %w", to, err)
	}
	out := make([]byte, 0, 1500)
	f := p.feed(ctx, 1, func(n int, frames [][]byte) error {
		out = append(out[:0], 0x80, 111)
		out = binary.BigEndian.AppendUint16(out, uint16(n))
		out = binary.BigEndian.AppendUint32(out, uint32(n)*960)
		out = binary.BigEndian.AppendUint32(out, 0x45617273)
		_, _ = conn.Write(append(out, frames[0]...)) // refused while nobody listens yet
		return nil
	})
	cancel := f.cancel
	f.cancel = func() {
		cancel()
		_ = conn.Close()
	}
	return f, nil
}

// oggStream writes Ogg Opus (RFC 3533, RFC 7845) with pages of as many packets as it is given: that number decides how often Icecast writes.
type oggStream struct {
	w      io.Writer
	number uint32
}

func (o *oggStream) begin() error {
	head := append([]byte("OpusHead"), 1, 1, 0, 0) // version, channels, pre-skip
	head = binary.LittleEndian.AppendUint32(head, 48000)
	head = append(head, 0, 0, 0)
	if err := o.write(2, 0, head); err != nil {
		return err
	}
	return o.write(0, 0, []byte("OpusTags\x05\x00\x00\x00bench\x00\x00\x00\x00"))
}

func (o *oggStream) page(granule uint64, packets [][]byte) error {
	return o.write(0, granule, packets...)
}

func (o *oggStream) write(kind byte, granule uint64, packets ...[]byte) error {
	b := append([]byte("OggS\x00"), kind)
	b = binary.LittleEndian.AppendUint64(b, granule)
	b = binary.LittleEndian.AppendUint32(b, 0x62656e63)
	b = binary.LittleEndian.AppendUint32(b, o.number)
	b = append(b, 0, 0, 0, 0, 0)
	o.number++
	for _, p := range packets {
		n := len(p)
		for ; n >= 255; n -= 255 {
			b = append(b, 255)
		}
		b = append(b, byte(n))
	}
	b[26] = byte(len(b) - 27)
	for _, p := range packets {
		b = append(b, p...)
	}
	var sum uint32 // CRC-32, not reflected, from zero: 50 pages a second at most, so bit by bit
	for _, c := range b {
		sum ^= uint32(c) << 24
		for range 8 {
			if sum&(1<<31) != 0 {
				sum = sum<<1 ^ 0x04c11db7
			} else {
				sum <<= 1
			}
		}
	}
	binary.LittleEndian.PutUint32(b[22:], sum)
	_, err := o.w.Write(b)
	return err
}
