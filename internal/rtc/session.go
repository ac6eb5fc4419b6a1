package rtc

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"earshot/internal/mix"
	"earshot/internal/peer"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

// session is one speaker's or monitor's connection, and the stage's Outlet for it.
type session struct {
	// Fixed once the connection can do anything.
	gate      *Gate
	id, kind  string
	opus, red uint8 // payload types
	pc        *webrtc.PeerConnection
	track     *webrtc.TrackLocalStaticRTP // nil for WHIP

	connected atomic.Bool
	readers   sync.WaitGroup

	// Touched only in Hear, which the stage calls from one goroutine.
	begun bool
	half  uint16
	out   rtp.Packet

	mu      sync.Mutex
	seat    *stage.Seat // nil for a monitor, and before the answer is certain
	stop    func()      // ends a monitor
	timer   *time.Timer // until connected
	ended   bool
	reading bool
}

// prepare adds what is sent and received, and the callbacks, before anything is negotiated.
func (s *session) prepare(pc *webrtc.PeerConnection, direction webrtc.RTPTransceiverDirection) error {
	s.pc = pc
	init := webrtc.RTPTransceiverInit{Direction: direction}
	var err error
	if direction == webrtc.RTPTransceiverDirectionRecvonly {
		_, err = pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, init)
	} else {
		s.track, err = webrtc.NewTrackLocalStaticRTP(peer.Opus(fmtp), "mix", "earshot")
		if err == nil {
			_, err = pc.AddTransceiverFromTrack(s.track, init)
		}
	}
	if err != nil {
		return err
	}
	pc.OnTrack(s.listen)
	// The interceptors see RTCP (reports, NACK) only while somebody reads it.
	for _, t := range pc.GetTransceivers() {
		if t.Sender() != nil && s.track != nil {
			s.control(t.Sender().Read)
		}
	}
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			if s.connected.CompareAndSwap(false, true) {
				s.gate.metrics.connected.WithLabelValues(s.kind).Inc()
				s.mu.Lock()
				if s.timer != nil {
					s.timer.Stop()
				}
				s.mu.Unlock()
			}
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			s.lost()
		}
	})
	return nil
}

// expect gives the connection d to come about.
func (s *session) expect(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.connected.Load() {
		return
	}
	s.timer = time.AfterFunc(d, func() {
		if !s.connected.Load() {
			s.gate.metrics.ended.WithLabelValues("no_handshake").Inc()
			s.lost()
		}
	})
}

// lost tells the stage that the connection went without a word. The stage answers by closing the outlet.
func (s *session) lost() { s.part((*stage.Seat).Lost) }

// quit gives the seat up.
func (s *session) quit() { s.part(func(seat *stage.Seat) { seat.Leave(stage.Left) }) }

// flooded gives up a connection that opens streams without end.
func (s *session) flooded() {
	s.gate.metrics.ended.WithLabelValues("flood").Inc()
	s.quit()
}

func (s *session) part(how func(*stage.Seat)) {
	s.mu.Lock()
	seat, stop := s.seat, s.stop
	s.mu.Unlock()
	if seat != nil {
		how(seat)
	} else if stop != nil {
		stop()
	}
}

// Hear sends one frame of the mix. The RTP timestamp is the frame's, the sequence number too; its first value is below 2^15,
// so that a lost first packet cannot be taken for one of the next SRTP roll-over (RFC 3711, 3.3.1).
func (s *session) Hear(frame uint64, packet []byte) {
	if s.track == nil || !s.connected.Load() {
		return
	}
	if !s.begun {
		s.begun, s.half = true, uint16(frame)&0x8000
	}
	s.out.Version = 2
	s.out.SequenceNumber = uint16(frame) - s.half
	s.out.Timestamp = timeline.RTPTime(frame)
	s.out.Payload = packet
	if err := s.track.WriteRTP(&s.out); err != nil {
		s.gate.metrics.dropped.WithLabelValues("send").Inc()
		return
	}
	s.gate.metrics.sent.Inc()
}

// Close ends the connection, because the stage says so.
func (s *session) Close(r stage.Reason) {
	s.mu.Lock()
	ended := s.ended
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	if ended {
		return
	}
	s.gate.metrics.ended.WithLabelValues(string(r)).Inc()
	if err := s.pc.Close(); err != nil {
		s.gate.cfg.Log.Debug("close a speaker's connection", "err", err)
	}
	s.readers.Wait()
	s.gate.forget(s)
}

// listen passes a speaker's packets to their seat until the connection ends. Pion calls it on a goroutine of its own, which
// Close waits for.
func (s *session) listen(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	s.control(receiver.Read)
	s.mu.Lock()
	if s.ended || s.reading || s.seat == nil {
		s.mu.Unlock()
		return
	}
	s.reading = true // a second stream on the same connection is nobody's voice
	s.readers.Add(1)
	seat := s.seat
	s.mu.Unlock()
	defer s.readers.Done()
	var (
		buf    = make([]byte, 1600)
		packet rtp.Packet
		v      = voice{seat: seat, opus: s.opus, metrics: s.gate.metrics}
		m      = s.gate.metrics
	)
	for {
		n, _, err := remote.Read(buf)
		if err != nil {
			return
		}
		if err := packet.Unmarshal(buf[:n]); err != nil {
			m.dropped.WithLabelValues("malformed").Inc()
			continue
		}
		m.received.Inc()
		if len(packet.Payload) == 0 { // padding alone, or what Chromium sends before the microphone is on
			m.dropped.WithLabelValues("empty").Inc()
			continue
		}
		switch packet.PayloadType {
		case s.opus:
			v.push(packet.SequenceNumber, packet.Timestamp, packet.Payload)
		case s.red:
			v.unfold(&packet)
		default:
			m.dropped.WithLabelValues("payload_type").Inc()
		}
	}
}

// control reads RTCP until the connection ends.
func (s *session) control(read func([]byte) (int, interceptor.Attributes, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.readers.Go(func() {
		buf := make([]byte, 1600)
		for {
			if _, _, err := read(buf); err != nil {
				return
			}
		}
	})
}

// voice is what one speaker's packets go through on their way to the seat.
type voice struct {
	seat    *stage.Seat
	opus    uint8
	seen    window
	metrics *metrics
}

func (v *voice) push(seq uint16, ts uint32, payload []byte) {
	v.seen.first(seq)
	v.seat.Push(mix.Packet{Seq: seq, TS: ts, Payload: payload})
}

// unfold takes a RED packet apart: first the older frames that did not come by themselves, then the new one.
func (v *voice) unfold(p *rtp.Packet) {
	blocks, err := parseRED(p.Payload, v.opus)
	if err != nil {
		v.metrics.dropped.WithLabelValues("malformed").Inc()
		return
	}
	last := len(blocks) - 1
	for i, b := range blocks[:last] {
		back := uint16(last - i)
		d, err := timeline.TOCDuration(b.payload)
		// The sequence number of a repeated frame is not sent. It is the one so many packets back if the time fits.
		if err != nil || b.offset != uint32(d)*uint32(back) || !v.seen.first(p.SequenceNumber-back) {
			continue
		}
		v.metrics.repaired.Inc()
		v.seat.Push(mix.Packet{Seq: p.SequenceNumber - back, TS: p.Timestamp - b.offset, Payload: b.payload})
	}
	if len(blocks[last].payload) == 0 {
		v.metrics.dropped.WithLabelValues("empty").Inc()
		return
	}
	v.push(p.SequenceNumber, p.Timestamp, blocks[last].payload)
}
