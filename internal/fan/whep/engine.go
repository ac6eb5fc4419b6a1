// Package whep serves listeners over WebRTC (draft-ietf-wish-whep), and owns the one port, UDP and TCP, over which all WebRTC comes
// and goes: that of speakers too, who get their packets through [Port.UDPMux] and [Port.TCPMux].
package whep

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/peer"
	"earshot/internal/timeline"
)

// handshake is how long a WebRTC listener may take from the answer to DTLS being done.
const handshake = 15 * time.Second

// unreached is how long one from whom no check has come yet is safe from being given up for a newcomer. A browser's first comes
// within a round trip; whoever floods with offers sends none.
const unreached = 2 * time.Second

// Source is the programme of one event, as its listeners read it.
type Source struct {
	Slug     string
	Timeline *timeline.Timeline
	Audience *observatory.Audience
}

// Refusal says why nobody can begin to listen: nil while the timeline grows.
func (s Source) Refusal() error {
	switch {
	case !s.Timeline.Closed():
		return nil
	case s.Timeline.Ended():
		return event.Conflict("The event has ended.")
	}
	return event.Unavailable("The server restarts. Try again in a few seconds.", nil)
}

// Config of an Engine.
type Config struct {
	Port *Port

	// Advertise replaces the addresses in the answers. Empty: the listening address, or where that is unspecified, all interfaces'
	// addresses.
	Advertise []netip.Addr

	Max        int // listeners at once, default 2000
	MaxPending int // of these, not yet connected, default 200: what a flood of offers can hold

	Log *slog.Logger
	Now func() time.Time // default time.Now
}

// Engine holds the WebRTC listeners: today each a whole PeerConnection with a goroutine that follows the timeline. All methods are
// safe from any goroutine.
type Engine struct {
	cfg   Config
	stats counters
	maker *peer.Maker
	wg    sync.WaitGroup // one per session

	mu       sync.Mutex
	sessions map[string]*listening
	pending  int
	closed   bool
}

// listening is one WebRTC listener.
type listening struct {
	in    *Engine
	id    string
	src   Source
	track *webrtc.TrackLocalStaticRTP
	red   bool

	since   time.Time
	reached atomic.Bool // a check came from the listener
	pending bool        // not up yet, and not given up; guarded by whep.mu

	up   chan struct{} // closed when DTLS is done
	done chan struct{} // closed when it is over
	once sync.Once     // for up
	over sync.Once     // for done
}

// New prepares to answer. The port must be open.
func New(cfg Config) (*Engine, error) {
	if cfg.Max == 0 {
		cfg.Max = 2000
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = 200
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Engine{cfg: cfg, sessions: make(map[string]*listening)}
	var err error
	w.maker, err = peer.New(peer.Config{
		UDPMux: cfg.Port.UDPMux(), TCPMux: cfg.Port.TCPMux(), Advertise: cfg.Advertise,
		Fmtp: "minptime=10;useinbandfec=1", RED: true, Log: cfg.Log,
		Interceptors: func(r *interceptor.Registry) error {
			// Only where NACK was offered does this do anything. 64 packets are 1.3 s: later nobody waits for one.
			responder, err := nack.NewResponderInterceptor(nack.ResponderSize(64))
			if err != nil {
				return err
			}
			r.Add(responder)
			return nil
		},
	})
	return w, err
}

// Answer answers a listener's SDP offer (draft-ietf-wish-whep). The session ends with the timeline, with End, or when the listener
// goes. Errors are *event.Error: Invalid for the offer, Busy, Conflict after the end, Unavailable while stopping.
func (w *Engine) Answer(ctx context.Context, src Source, offer []byte, _ int) (string, []byte, error) {
	o, err := peer.ReadOffer(offer)
	if err == nil && !o.Receives {
		err = event.Invalid("offer", "The offer does not receive audio. Offer the track recvonly.")
	}
	if err != nil {
		w.stats.refused[refusedOffer].Add(1)
		return "", nil, err
	}
	if err := src.Refusal(); err != nil {
		return "", nil, err
	}
	l := &listening{
		in: w, id: rand.Text(), src: src, red: o.RED != 0, since: time.Now(), pending: true,
		up: make(chan struct{}), done: make(chan struct{}),
	}
	if err := w.admit(l); err != nil {
		return "", nil, err
	}
	pc, answer, err := w.maker.Answer(ctx, o, l.prepare, func(*webrtc.PeerConnection) error { return nil }, l.flooded)
	if err != nil {
		w.forget(l, true)
		if event.CodeOf(err) == event.CodeInvalid {
			w.stats.refused[refusedOffer].Add(1)
		}
		return "", nil, err
	}
	go l.serve(pc)
	return l.id, answer, nil
}

func (w *Engine) admit(l *listening) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		w.stats.refused[refusedStopping].Add(1)
		return event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	}
	if len(w.sessions) >= w.cfg.Max || w.pending >= w.cfg.MaxPending && !w.makeRoom() {
		w.stats.refused[refusedFull].Add(1)
		return event.Busy("The server has as many WebRTC listeners as it can take. Listen another way, or try again in a minute.")
	}
	w.sessions[l.id] = l
	w.pending++
	w.wg.Add(1)
	return nil
}

// makeRoom gives up the pending session that has waited longest without a check. Its end takes a moment, so there are up to twice
// as many as MaxPending then.
func (w *Engine) makeRoom() bool {
	if w.pending >= 2*w.cfg.MaxPending {
		return false
	}
	var oldest *listening
	for _, l := range w.sessions {
		if l.pending && !l.reached.Load() && (oldest == nil || l.since.Before(oldest.since)) {
			oldest = l
		}
	}
	if oldest == nil || time.Since(oldest.since) < unreached {
		return false
	}
	oldest.pending = false
	w.stats.dropped[droppedHandshake].Add(1)
	oldest.end()
	return true
}

// forget takes a session out; pending says that it never came up.
func (w *Engine) forget(l *listening, pending bool) {
	w.mu.Lock()
	delete(w.sessions, l.id)
	if pending {
		w.pending--
	}
	w.mu.Unlock()
	w.wg.Done()
}

// End ends a session by its id and says whether there was one.
func (w *Engine) End(id string) bool {
	w.mu.Lock()
	l := w.sessions[id]
	w.mu.Unlock()
	if l == nil {
		return false
	}
	l.end()
	return true
}

// Close ends all and waits for them. A WebRTC client learns by DTLS's close_notify that it is over.
func (w *Engine) Close() {
	w.mu.Lock()
	w.closed = true
	for _, l := range w.sessions {
		l.end()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// flooded gives up a listener that opens streams without end.
func (l *listening) flooded() {
	l.in.stats.dropped[droppedProtocol].Add(1)
	l.end()
}

func (l *listening) end() { l.over.Do(func() { close(l.done) }) }

func (l *listening) prepare(pc *webrtc.PeerConnection) error {
	codec := peer.Opus("")
	if l.red {
		codec = webrtc.RTPCodecCapability{MimeType: peer.MimeRED, ClockRate: event.SampleRate, Channels: 2}
	}
	var err error
	if l.track, err = webrtc.NewTrackLocalStaticRTP(codec, "programme", l.src.Slug); err != nil {
		return err
	}
	_, err = pc.AddTransceiverFromTrack(l.track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return err
	}
	pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		if s == webrtc.ICEConnectionStateConnected {
			l.reached.Store(true)
		}
	})
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			l.once.Do(func() { close(l.up) })
		case webrtc.PeerConnectionStateFailed:
			l.in.stats.dropped[droppedLost].Add(1)
			l.end()
		case webrtc.PeerConnectionStateClosed:
			l.end()
		}
	})
	return nil
}

// serve waits for the connection and follows the timeline until either ends.
func (l *listening) serve(pc *webrtc.PeerConnection) {
	m := &l.in.stats
	pending := true
	var rtcp sync.WaitGroup
	defer func() {
		if err := pc.Close(); err != nil {
			l.in.cfg.Log.Debug("close a listener's connection", "err", err)
		}
		rtcp.Wait()
		l.in.forget(l, pending)
	}()
	timeout := time.NewTimer(handshake)
	defer timeout.Stop()
	select {
	case <-l.up:
	case <-l.done:
		return
	case <-timeout.C:
		m.dropped[droppedHandshake].Add(1)
		return
	}
	l.in.mu.Lock()
	l.in.pending--
	l.pending = false
	l.in.mu.Unlock()
	pending = false
	m.listeners.Add(1)
	m.joined.Add(1)
	defer m.listeners.Add(-1)

	for _, s := range pc.GetSenders() { // the interceptors see RTCP only while somebody reads it
		rtcp.Go(func() {
			buf := make([]byte, 1500)
			for {
				if _, _, err := s.Read(buf); err != nil {
					return
				}
			}
		})
	}
	ear := l.src.Audience.Join(observatory.WHEP)
	defer l.src.Audience.Leave(ear)
	l.follow(ear)
}

// follow sends each frame as it is made, beginning with the newest there is.
func (l *listening) follow(ear *observatory.Listener) {
	var (
		tl     = l.src.Timeline
		m      = &l.in.stats
		packet rtp.Packet
		red    redundancy
		next   = tl.Head()
	)
	if next > tl.First() {
		next--
	}
	// The first sequence number is below 2^15, so that a lost first packet cannot be taken for one of the next SRTP
	// roll-over (RFC 3711, 3.3.1).
	half := uint16(next) & 0x8000
	for {
		changed := tl.Changed()
		f, err := tl.Frame(next)
		switch {
		case err == nil:
		case errors.Is(err, timeline.ErrAhead):
			select {
			case <-changed:
			case <-l.done:
				return
			}
			continue
		case errors.Is(err, timeline.ErrGap): // a gap ends where a segment begins
			next += timeline.FramesPerSegment - next%timeline.FramesPerSegment
			continue
		case errors.Is(err, timeline.ErrGone):
			m.skipped.Add(tl.Head() - next)
			next = tl.Head()
			continue
		default: // closed
			return
		}
		select {
		case <-l.done:
			return
		default:
		}
		packet.Version = 2
		packet.SequenceNumber = uint16(next) - half
		packet.Timestamp = timeline.RTPTime(next)
		packet.Payload = f.Packet
		if l.red {
			packet.Payload = red.wrap(next, f.Packet)
		}
		if err := l.track.WriteRTP(&packet); err != nil {
			if errors.Is(err, io.ErrClosedPipe) {
				return
			}
			m.dropped[droppedQueue].Add(1)
		} else {
			ear.Took(l.in.cfg.Now())
			m.bytes.Add(uint64(len(packet.Payload) + 12))
		}
		next++
	}
}

// redundancy puts the frame before into each packet (RFC 2198), so that one lost packet in a row is heard by nobody.
type redundancy struct {
	buf    []byte
	last   []byte
	number uint64
}

const maxRepeat = 1<<10 - 1 // bytes: the header's ten bits

func (r *redundancy) wrap(number uint64, packet []byte) []byte {
	b := r.buf[:0]
	if r.last != nil && r.number+1 == number && len(r.last) <= maxRepeat {
		n := len(r.last)
		b = append(b, 0x80|peer.PayloadOpus, byte(event.FrameSamples>>6), byte(event.FrameSamples&0x3f<<2|n>>8), byte(n), peer.PayloadOpus)
		b = append(b, r.last...)
	} else {
		b = append(b, peer.PayloadOpus)
	}
	b = append(b, packet...)
	r.buf, r.last, r.number = b, packet, number
	return b
}
