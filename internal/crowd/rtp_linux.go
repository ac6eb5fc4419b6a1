package crowd

import (
	"math/bits"

	"github.com/pion/rtcp"

	"earshot/internal/crowd/wire"
)

// nackAgain is how long a listener waits before it asks anew for what is missing.
const nackAgain = 40 * ms

// rtpState follows the one stream.
type rtpState struct {
	begun    bool
	ssrc     uint32
	seq      uint16 // the highest
	cycles   uint32
	first    uint32 // extended sequence number
	received uint32
	holes    uint64 // packets not had: bit i is seq-1-i
	missing  uint64 // frames not had: bit i is endFrame-1-i
	nacked   int64  // when last asked for
	base     uint32 // RTP time of frame 0, of a server whose timeline is not known
}

// rtp takes a packet of audio.
func (r *rtcClient) rtp(at int64, b []byte) {
	w := r.l.w
	h, err := wire.ReadRTP(b)
	if err != nil {
		w.tally.Malformed++
		return
	}
	var payload []byte
	light := w.cfg.Light && r.l.ear == nil
	if !light {
		plain, err := r.keys.in.DecryptRTP(w.rtc.plain[:0], b, &w.rtc.header)
		if err != nil {
			w.tally.Malformed++
			return
		}
		payload = plain[h.Header:]
		if b[0]&0x20 != 0 && len(payload) > 0 { // padding
			payload = payload[:max(0, len(payload)-int(payload[len(payload)-1]))]
		}
		if len(payload) == 0 {
			return
		}
	}
	w.tally.Packets++
	s := &r.media
	if !s.begun {
		s.begun, s.ssrc, s.seq, s.first = true, h.SSRC, h.Seq-1, uint32(h.Seq)
		s.holes = 0
	}
	if h.SSRC != s.ssrc {
		w.tally.Malformed++
		return
	}
	s.received++
	ahead := int16(h.Seq - s.seq)
	if ahead > 0 {
		if h.Seq < s.seq {
			s.cycles += 1 << 16
		}
		s.holes = s.holes<<uint(ahead) | (1<<uint(ahead-1) - 1)
		s.seq = h.Seq
	} else if back := uint(-ahead); back > 0 && back <= 64 {
		s.holes &^= 1 << (back - 1)
	}
	if light {
		if ahead > 0 {
			r.unread(at, h.Time, ahead)
		}
	} else if h.Type == r.answer.RED && r.answer.RED != 0 {
		blocks, n, err := wire.ReadRED(payload)
		if err != nil {
			w.tally.Malformed++
			return
		}
		r.frames(at, h.Time, blocks[n-1].Payload, ahead)
		for _, b := range blocks[:n-1] {
			if len(b.Payload) > 0 {
				r.frames(at, h.Time-b.Back, b.Payload, 0)
			}
		}
	} else if h.Type == r.answer.Opus {
		r.frames(at, h.Time, payload, ahead)
	}
	if s.holes != 0 && w.cfg.NACK && r.answer.NACK && (ahead > 1 || at-s.nacked > nackAgain) {
		r.nack(at)
	}
}

// frames takes an Opus packet of RTP time ts. It is new if ahead > 0: how far its sequence number is beyond the highest; else it
// is one that was missing, or a copy.
func (r *rtcClient) frames(at int64, ts uint32, packet []byte, ahead int16) {
	l, w := r.l, r.l.w
	samples := wire.OpusSamples(packet)
	if samples == 0 {
		w.tally.Malformed++
		return
	}
	n := max(samples/960, 1)
	first, ok := r.number(at, ts)
	if !ok {
		w.tally.Malformed++
		return
	}
	last := first + uint64(n)
	if l.ear != nil {
		l.ear.take(first, packet)
	}
	if l.numbered && last <= l.endFrame {
		r.repair(first, n, ahead)
		return
	}
	if ahead <= 0 && l.numbered { // RED's copy of what came first as new cannot be beyond the end
		w.tally.Repeats += int64(n)
		return
	}
	gap := 0
	if l.numbered && first > l.endFrame {
		gap = int(min(first-l.endFrame, 1<<20))
		switch {
		case gap > 500: // ten seconds: the timeline went on elsewhere, as after a restart
			w.tally.Skips++
			gap = 0
		case ahead == 1 && !w.timed: // the sender was silent
			gap = 0
		}
	}
	s := &r.media
	s.shift(gap, n, &w.tally.LostFrames)
	l.endFrame, l.numbered = last, true
	if l.player.cadence != int32(n*20) && l.player.nchanges == 0 {
		l.player.cadence = int32(n * 20)
	}
	l.piece(at, int64(gap+n)*frame, int64(gap)*frame, first-uint64(gap), last)
	l.delays(at, first, last)
}

// number is the frame of an RTP time: the one that is nearest to where the stream or, at first, the timeline is.
func (r *rtcClient) number(at int64, ts uint32) (first uint64, ok bool) {
	l, w := r.l, r.l.w
	near := l.endFrame
	if !l.numbered {
		if w.timed {
			near = uint64(max(0, w.loop.wall+at-w.origin) / frame)
		} else {
			near = 1 << 30
			r.media.base = ts - uint32(near*960)
		}
	}
	ts -= r.media.base
	time := int64(near*960) + int64(int32(ts-uint32(near*960)))
	return uint64(time) / 960, time >= 0 && (!w.timed || time%960 == 0)
}

// unread takes a packet that was not decrypted. How long it sounds is not known before the next comes: it is taken to be as long as
// the one before, and put right then.
func (r *rtcClient) unread(at int64, ts uint32, ahead int16) {
	l, w, s := r.l, r.l.w, &r.media
	first, ok := r.number(at, ts)
	if !ok {
		w.tally.Malformed++
		return
	}
	n := max(int64(l.player.cadence)/20, 1)
	length, lost := n, int64(0)
	if l.numbered {
		off := int64(first) - int64(l.endFrame)
		if off > 500 || off < -500 {
			w.tally.Skips++
			off = 0
		}
		if ahead > 1 && off > 0 {
			lost = off
		} else if off != 0 && w.timed && l.player.nchanges == 0 {
			n = max(1, int64(l.player.cadence)/20+off)
			l.player.cadence = int32(n * 20)
		}
		if length = off + n; length <= 0 {
			return
		}
	}
	s.shift(int(lost), int(n), &w.tally.LostFrames)
	l.endFrame, l.numbered = first+uint64(n), true
	l.piece(at, length*frame, lost*frame, first, l.endFrame)
	l.delays(at, first, l.endFrame)
}

// shift moves the window of missing frames on by gap that are missing and n that are there.
func (s *rtpState) shift(gap, n int, lost *int64) {
	by := gap + n
	if by >= 64 {
		*lost += int64(bits.OnesCount64(s.missing))
		s.missing = 0
	} else {
		*lost += int64(bits.OnesCount64(s.missing >> (64 - by)))
		s.missing <<= by
	}
	for i := n; i < by; i++ {
		if i >= 64 {
			*lost += int64(by - i)
			break
		}
		s.missing |= 1 << i
	}
}

// repair takes frames that lie behind the end: those that are missing may still be in time.
func (r *rtcClient) repair(first uint64, n int, ahead int16) {
	l, w, s := r.l, r.l.w, &r.media
	for f := first; f < first+uint64(n); f++ {
		i := l.endFrame - 1 - f
		if i >= 64 || s.missing&(1<<i) == 0 {
			if ahead < 0 {
				w.tally.Repeats++
			}
			continue
		}
		s.missing &^= 1 << i
		if int64(i+1)*frame > l.player.inHand() { // its time is past
			w.tally.LostFrames++
		} else {
			w.tally.Repaired++
		}
	}
}

// settle counts what was missing when its time came.
func (r *rtcClient) settle() {
	s := &r.media
	for i := range uint64(64) {
		if s.missing&(1<<i) != 0 && int64(i+1)*frame > r.l.player.inHand() {
			r.l.w.tally.LostFrames++
		}
	}
}

// nack asks for the packets of the last 16 that are missing (RFC 4585, 6.2.1).
func (r *rtcClient) nack(at int64) {
	s := &r.media
	s.nacked = at
	var pairs []rtcp.NackPair
	for i := 15; i >= 0; i-- {
		if s.holes&(1<<i) != 0 {
			seq := s.seq - 1 - uint16(i)
			if len(pairs) > 0 && seq-pairs[0].PacketID <= 16 {
				pairs[0].LostPackets |= 1 << (seq - pairs[0].PacketID - 1)
			} else if len(pairs) == 0 {
				pairs = append(pairs, rtcp.NackPair{PacketID: seq})
			}
		}
	}
	if len(pairs) > 0 {
		r.rtcp(&rtcp.TransportLayerNack{SenderSSRC: uint32(r.l.id) + 1, MediaSSRC: s.ssrc, Nacks: pairs})
	}
}

// report says how well it is heard (RFC 3550, 6.4.2).
func (r *rtcClient) report() {
	s := &r.media
	if !s.begun {
		return
	}
	highest := s.cycles | uint32(s.seq)
	expected := highest - s.first + 1
	lost := int64(expected) - int64(s.received)
	between, had := expected-r.reports.expected, s.received-r.reports.received
	r.reports.expected, r.reports.received = expected, s.received
	fraction := uint8(0)
	if between > had && between > 0 {
		fraction = uint8(min(255, (between-had)*256/between))
	}
	r.rtcp(&rtcp.ReceiverReport{SSRC: uint32(r.l.id) + 1, Reports: []rtcp.ReceptionReport{{
		SSRC: s.ssrc, FractionLost: fraction, TotalLost: uint32(max(0, lost)) & 0xffffff, LastSequenceNumber: highest,
	}}})
}

func (r *rtcClient) rtcp(p rtcp.Packet) {
	b, err := p.Marshal()
	if err == nil {
		b, err = r.keys.out.EncryptRTCP(nil, b, nil)
	}
	if err == nil {
		r.sock.send(r.l.source(), r.remote, b)
	}
}
