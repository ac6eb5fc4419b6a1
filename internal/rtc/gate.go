// Package rtc is the speakers' way in: it answers their SDP offers, passes what they say to the stage and what they shall
// hear, the mix without them, back. One negotiation is enough, whoever comes or goes (RFC 8829); a WHIP client (RFC 9725) only
// sends. A connection belongs to one seat on stage: when either ends, so does the other.
package rtc

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/webrtc/v4"
	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/event"
	"earshot/internal/peer"
	"earshot/internal/stage"
)

const (
	// maxSessions bounds speakers' and monitors' connections at once, over all events: 200 to 300 KB each.
	maxSessions = 500
	// fmtp is what we ask speakers to send (RFC 7587, 7.1): mono, in-band FEC, enough bits for speech with a little music.
	fmtp = "minptime=10;useinbandfec=1;stereo=0;maxaveragebitrate=48000"
)

// Config of a Gate.
type Config struct {
	UDPMux    ice.UDPMux
	TCPMux    ice.TCPMux   // nil: no fallback
	Advertise []netip.Addr // what candidates say; empty: the listening addresses

	// Handshake is how long a connection may take from the answer to DTLS being done; default 15 s.
	Handshake time.Duration
	// Silent is how long nothing may come from a speaker before the connection counts as lost; default 10 s. Browsers check
	// every 2.5 s (Chromium) to 5 s, and send a packet of voice every 20 ms.
	Silent time.Duration

	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: none
}

// Gate lets speakers in. All methods are safe from any goroutine.
type Gate struct {
	cfg     Config
	maker   *peer.Maker
	metrics *metrics
	wg      sync.WaitGroup // a session's, until it is closed and its reader is gone

	mu       sync.Mutex
	sessions map[string]*session
	closed   bool
}

// New prepares the gate.
func New(cfg Config) (*Gate, error) {
	if cfg.Handshake == 0 {
		cfg.Handshake = 15 * time.Second
	}
	if cfg.Silent == 0 {
		cfg.Silent = 10 * time.Second
	}
	g := &Gate{cfg: cfg, sessions: make(map[string]*session)}
	var err error
	if g.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("speakers' metrics: %w", err)
	}
	g.maker, err = peer.New(peer.Config{
		UDPMux: cfg.UDPMux, TCPMux: cfg.TCPMux, Advertise: cfg.Advertise,
		Silent: cfg.Silent, Fmtp: fmtp, RED: true, Interceptors: interceptors, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// interceptors ask for lost packets again where the other side offered it, and report what was received, so that it can
// adapt. Asking within 20 ms leaves time for the answer before the jitter buffer needs it.
func interceptors(r *interceptor.Registry) error {
	generator, err := nack.NewGeneratorInterceptor(nack.GeneratorInterval(20*time.Millisecond), nack.GeneratorMaxNacksPerPacket(4))
	if err != nil {
		return err
	}
	responder, err := nack.NewResponderInterceptor(nack.ResponderSize(64))
	if err != nil {
		return err
	}
	receiver, err := report.NewReceiverInterceptor()
	if err != nil {
		return err
	}
	sender, err := report.NewSenderInterceptor()
	if err != nil {
		return err
	}
	r.Add(responder)
	r.Add(generator)
	r.Add(receiver)
	r.Add(sender)
	return nil
}

// Speak answers the offer of somebody who wants to be heard, and seats them; an older connection of the same person is
// displaced. recvonly answers without a way back (WHIP); otherwise they hear the mix without them. The id, which nobody can
// guess, is for End. Errors are *event.Error: Invalid for the offer, Busy, Unavailable, and what stage.Join refuses.
func (g *Gate) Speak(ctx context.Context, st *stage.Stage, p event.Person, offer []byte, recvonly bool) (
	id string, answer []byte, err error,
) {
	o, err := g.read(offer)
	if err != nil {
		return "", nil, err
	}
	if !o.Sends {
		g.metrics.refused.WithLabelValues("offer").Inc()
		return "", nil, event.Invalid("offer", "The offer does not send audio. Offer the track sendrecv or sendonly.")
	}
	s := &session{gate: g, id: rand.Text(), kind: "speaker", opus: o.Opus, red: o.RED}
	direction := webrtc.RTPTransceiverDirectionSendrecv
	if recvonly || !o.Receives {
		direction = webrtc.RTPTransceiverDirectionRecvonly
	}
	return g.open(ctx, s, o, direction, func() error {
		seat, err := st.Join(ctx, p, s, direction == webrtc.RTPTransceiverDirectionSendrecv)
		if err == nil {
			s.mu.Lock()
			s.seat = seat
			s.mu.Unlock()
		}
		return err
	})
}

// Monitor answers the offer of a second device on which somebody on stage wants to hear: the mix without them.
func (g *Gate) Monitor(ctx context.Context, st *stage.Stage, personID string, offer []byte) (
	id string, answer []byte, err error,
) {
	o, err := g.read(offer)
	if err != nil {
		return "", nil, err
	}
	if !o.Receives {
		g.metrics.refused.WithLabelValues("offer").Inc()
		return "", nil, event.Invalid("offer", "The offer does not receive audio. Offer the track recvonly.")
	}
	s := &session{gate: g, id: rand.Text(), kind: "monitor", opus: o.Opus}
	return g.open(ctx, s, o, webrtc.RTPTransceiverDirectionSendonly, func() error {
		stop, err := st.Monitor(ctx, personID, s)
		if err == nil {
			s.mu.Lock()
			s.stop = stop
			s.mu.Unlock()
		}
		return err
	})
}

func (g *Gate) read(offer []byte) (*peer.Offer, error) {
	o, err := peer.ReadOffer(offer)
	if err != nil {
		g.metrics.refused.WithLabelValues("offer").Inc()
	}
	return o, err
}

// open makes the connection of s. join is called when the offer has proved answerable, so that a broken one displaces nobody.
func (g *Gate) open(ctx context.Context, s *session, o *peer.Offer, direction webrtc.RTPTransceiverDirection, join func() error) (
	string, []byte, error,
) {
	if err := g.admit(s); err != nil {
		return "", nil, err
	}
	joined := false
	_, answer, err := g.maker.Answer(ctx, o,
		func(pc *webrtc.PeerConnection) error { return s.prepare(pc, direction) },
		func(*webrtc.PeerConnection) error {
			err := join()
			joined = err == nil
			return err
		}, s.flooded)
	if err != nil {
		if joined {
			s.quit() // the stage closes the outlet, which forgets the session
		} else {
			s.readers.Wait()
			g.forget(s)
		}
		if event.CodeOf(err) == event.CodeInvalid {
			g.metrics.refused.WithLabelValues("offer").Inc()
		}
		return "", nil, err
	}
	s.expect(g.cfg.Handshake)
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed { // Close came too early to find the seat
		s.quit()
	}
	return s.id, answer, nil
}

func (g *Gate) admit(s *session) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		g.metrics.refused.WithLabelValues("stopping").Inc()
		return event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	}
	if len(g.sessions) >= maxSessions {
		g.metrics.refused.WithLabelValues("full").Inc()
		return event.Busy("The server has as many speakers as it can take. Try again in a minute.")
	}
	g.sessions[s.id] = s
	g.wg.Add(1)
	g.metrics.sessions.WithLabelValues(s.kind).Inc()
	g.metrics.opened.WithLabelValues(s.kind).Inc()
	return nil
}

// forget takes a session out, once.
func (g *Gate) forget(s *session) {
	g.mu.Lock()
	_, known := g.sessions[s.id]
	delete(g.sessions, s.id)
	g.mu.Unlock()
	if known {
		g.metrics.sessions.WithLabelValues(s.kind).Dec()
		g.wg.Done()
	}
}

// End ends a session at its owner's wish and says whether there was one.
func (g *Gate) End(id string) bool {
	g.mu.Lock()
	s := g.sessions[id]
	g.mu.Unlock()
	if s == nil {
		return false
	}
	s.quit()
	return true
}

// Close ends all sessions and waits until they are gone or ctx ends. The stages must still run, or have ended their seats.
func (g *Gate) Close(ctx context.Context) error {
	g.mu.Lock()
	g.closed = true
	open := make([]*session, 0, len(g.sessions))
	for _, s := range g.sessions {
		open = append(open, s)
	}
	g.mu.Unlock()
	for _, s := range open {
		s.quit()
	}
	gone := make(chan struct{})
	go func() { g.wg.Wait(); close(gone) }()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("speakers still connected: %w", ctx.Err())
	}
}
