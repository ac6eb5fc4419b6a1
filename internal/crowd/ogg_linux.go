package crowd

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"earshot/internal/crowd/wire"
)

// oggUnits are the pages of an Ogg stream: ours, whose granule positions give frames, or any Icecast's.
type oggUnits struct {
	codec   oggCodec
	rate    uint32 // of granule positions; 0: not known
	skip    uint64 // samples before the first
	serial  uint32
	number  uint32 // of the last page
	granule uint64 // at the last page's end
	audio   bool   // a page of audio was there
}

type oggCodec uint8

const (
	oggOther oggCodec = iota
	oggOpus
	oggVorbis
)

func (o *oggUnits) begin() { *o = oggUnits{} }

func (o *oggUnits) units(l *listener, b []byte) (used int, err error) {
	for used < len(b) {
		p, n, err := wire.ReadPage(b[used:])
		if err != nil {
			return used, fmt.Errorf("%w: %w", errMalformed, err)
		}
		if n == 0 {
			return used, nil
		}
		if l.ear != nil && !wire.Sound(b[used:used+n]) {
			return used, fmt.Errorf("%w: an Ogg page with a wrong checksum", errMalformed)
		}
		used += n
		if err := o.page(l, &p); err != nil {
			return used, err
		}
	}
	return used, nil
}

func (o *oggUnits) page(l *listener, p *wire.Page) error {
	if p.First { // a stream begins, or follows another (a chain, as Icecast makes at each title)
		*o = oggUnits{serial: p.Serial, number: p.Number}
		switch {
		case bytes.HasPrefix(p.Data, []byte("OpusHead")) && len(p.Data) >= 19:
			o.codec, o.rate, o.skip = oggOpus, 48000, uint64(binary.LittleEndian.Uint16(p.Data[10:]))
		case bytes.HasPrefix(p.Data, []byte("\x01vorbis")) && len(p.Data) >= 16:
			o.codec, o.rate = oggVorbis, binary.LittleEndian.Uint32(p.Data[12:])
		}
		return nil
	}
	missed := p.Number != o.number+1
	o.number = p.Number
	if p.Granule == 0 || p.Granule == ^uint64(0) || bytes.HasPrefix(p.Data, []byte("OpusTags")) {
		return nil // headers, or the middle of a packet
	}
	first := !o.audio
	o.audio = true
	if o.codec == oggOpus && !p.Continued {
		return o.opus(l, p, first)
	}
	// What the page holds is not looked into: its time is from the last page's end to its own.
	before := o.granule
	o.granule = p.Granule
	switch {
	case first || o.rate == 0 || p.Granule < before:
		l.piece(l.w.loop.now, 0, 0, 0, 0)
		return nil
	case missed && !l.slow:
		l.w.tally.Skips++
	}
	l.piece(l.w.loop.now, int64((p.Granule-before)*1e9/uint64(o.rate)), 0, 0, 0)
	return nil
}

// opus takes a page of Opus packets, whose own lengths say how long it sounds.
func (o *oggUnits) opus(l *listener, p *wire.Page, first bool) error {
	samples := uint64(0)
	for i, at := 0, 0; i < len(p.Lacing); {
		packet, next, end, whole := p.Packet(i, at)
		if !whole {
			break
		}
		n := wire.OpusSamples(packet)
		if n == 0 {
			return fmt.Errorf("%w: no Opus packet in an Ogg page", errMalformed)
		}
		samples += uint64(n)
		i, at = next, end
	}
	before := o.granule
	o.granule = p.Granule
	if l.ear != nil && p.Granule >= samples+o.skip {
		o.listen(l.ear, p, (p.Granule-samples-o.skip)/960)
	}
	if !l.w.timed { // not a timeline of ours
		lost := int64(0)
		if !first && p.Granule > before+samples {
			lost = int64(p.Granule - before - samples)
			if !l.slow {
				l.w.tally.Skips++
				l.w.tally.LostFrames += lost / 960
			}
		}
		l.piece(l.w.loop.now, int64(samples)*1e6/48, 0, 0, 0)
		return nil
	}
	if p.Granule < samples+o.skip || samples%960 != 0 || (p.Granule-o.skip)%960 != 0 {
		return fmt.Errorf("%w: a page of %d samples that ends at %d", errMalformed, samples, p.Granule)
	}
	number := (p.Granule - o.skip - samples) / 960
	l.media(number, int(samples/960))
	return nil
}

// listen gives an ear the packets of a page.
func (o *oggUnits) listen(e *ear, p *wire.Page, number uint64) {
	for i, at := 0, 0; i < len(p.Lacing); {
		packet, next, end, whole := p.Packet(i, at)
		if !whole {
			return
		}
		e.take(number, packet)
		number += uint64(wire.OpusSamples(packet) / 960)
		i, at = next, end
	}
}
