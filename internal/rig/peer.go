// Package rig is what tests put around the server: people with a voice and ears over real WebRTC, a bad network, and means to
// measure what was heard. Only tests import it.
package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/logging"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"earshot/internal/mix"
)

const (
	payloadOpus = 111
	payloadRED  = 63
	frame       = 20 * time.Millisecond
	frameLen    = rate / 50
)

// PeerConfig says what a Peer does.
type PeerConfig struct {
	Send, Receive bool
	RED           bool          // offer RED over Opus, as Chromium does
	NACK          bool          // offer NACK
	TCP           bool          // use ICE over TCP only
	Video         bool          // offer a video track beside, as OBS does
	Silent        time.Duration // how long nothing may come before it gives up; default 10 s
}

// Peer is a WebRTC client: a speaker, a listener, or both.
type Peer struct {
	cfg   PeerConfig
	pc    *webrtc.PeerConnection
	track *voice
	wg    sync.WaitGroup

	up, down chan struct{} // closed when connected; when it failed or closed
	upOnce   sync.Once
	downOnce sync.Once

	mu    sync.Mutex
	heard []Heard
	began time.Time
}

// Heard is one packet that arrived.
type Heard struct {
	Seq     uint16
	TS      uint32
	Payload []byte // the Opus packet
	Repeat  bool   // it came as redundancy in a later packet
	At      time.Time
}

// NewPeer makes a client; Dial connects it.
func NewPeer(cfg PeerConfig) (*Peer, error) {
	p := &Peer{cfg: cfg, up: make(chan struct{}), down: make(chan struct{})}
	api, err := p.api()
	if err != nil {
		return nil, fmt.Errorf("make peer: %w", err)
	}
	if p.pc, err = api.NewPeerConnection(webrtc.Configuration{}); err != nil {
		return nil, fmt.Errorf("make peer: %w", err)
	}
	p.pc.OnTrack(p.listen)
	p.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			p.upOnce.Do(func() { close(p.up) })
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			p.downOnce.Do(func() { close(p.down) })
		}
	})
	if err := p.media(); err != nil {
		_ = p.pc.Close()
		return nil, fmt.Errorf("make peer: %w", err)
	}
	return p, nil
}

func (p *Peer) api() (*webrtc.API, error) {
	var s webrtc.SettingEngine
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(true)
	quiet := logging.NewDefaultLoggerFactory()
	quiet.Writer = io.Discard
	s.LoggerFactory = quiet
	if p.cfg.TCP {
		s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	}
	silent := p.cfg.Silent
	if silent == 0 {
		silent = 10 * time.Second
	}
	s.SetICETimeouts(silent/2, silent/2, 500*time.Millisecond)
	var m webrtc.MediaEngine
	opus := webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: rate, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
	}
	if p.cfg.NACK {
		opus.RTCPFeedback = []webrtc.RTCPFeedback{{Type: "nack"}}
	}
	err := m.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: payloadOpus}, webrtc.RTPCodecTypeAudio)
	if p.cfg.RED {
		err = errors.Join(err, m.RegisterCodec(webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: "audio/red", ClockRate: rate, Channels: 2, SDPFmtpLine: "111/111"},
			PayloadType:        payloadRED,
		}, webrtc.RTPCodecTypeAudio))
	}
	if p.cfg.Video {
		err = errors.Join(err, m.RegisterCodec(webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, PayloadType: 96,
		}, webrtc.RTPCodecTypeVideo))
	}
	var r interceptor.Registry
	if p.cfg.NACK {
		generator, gerr := nack.NewGeneratorInterceptor(nack.GeneratorInterval(20 * time.Millisecond))
		responder, rerr := nack.NewResponderInterceptor()
		err = errors.Join(err, gerr, rerr)
		if err == nil {
			r.Add(generator)
			r.Add(responder)
		}
	}
	reports, rerr := report.NewReceiverInterceptor()
	if err = errors.Join(err, rerr); err != nil {
		return nil, err
	}
	r.Add(reports)
	return webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(&m), webrtc.WithInterceptorRegistry(&r)), nil
}

func (p *Peer) media() error {
	direction := webrtc.RTPTransceiverDirectionRecvonly
	switch {
	case p.cfg.Send && p.cfg.Receive:
		direction = webrtc.RTPTransceiverDirectionSendrecv
	case p.cfg.Send:
		direction = webrtc.RTPTransceiverDirectionSendonly
	}
	init := webrtc.RTPTransceiverInit{Direction: direction}
	var err error
	if p.cfg.Send {
		p.track = &voice{}
		var t *webrtc.RTPTransceiver
		if t, err = p.pc.AddTransceiverFromTrack(p.track, init); err == nil {
			p.control(t.Sender().Read)
		}
	} else {
		_, err = p.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, init)
	}
	if err == nil && p.cfg.Video {
		recvonly := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
		_, err = p.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, recvonly)
	}
	return err
}

// Offer makes the client's SDP offer, with all its candidates.
func (p *Peer) Offer(ctx context.Context) ([]byte, error) {
	offer, err := p.pc.CreateOffer(nil)
	if err != nil {
		return nil, fmt.Errorf("offer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(offer); err != nil {
		return nil, fmt.Errorf("offer: %w", err)
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return nil, fmt.Errorf("offer: %w", ctx.Err())
	}
	return []byte(p.pc.LocalDescription().SDP), nil
}

// Accept takes the server's answer and waits until the connection is up.
func (p *Peer) Accept(ctx context.Context, answer []byte) error {
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(answer)}); err != nil {
		return fmt.Errorf("accept answer: %w", err)
	}
	select {
	case <-p.up:
		return nil
	case <-p.down:
		return errors.New("connect: it failed")
	case <-ctx.Done():
		return fmt.Errorf("connect: %w", ctx.Err())
	}
}

// Dial offers by way of post and connects.
func (p *Peer) Dial(ctx context.Context, post func(offer []byte) (answer []byte, err error)) error {
	offer, err := p.Offer(ctx)
	if err != nil {
		return err
	}
	answer, err := post(offer)
	if err != nil {
		return err
	}
	return p.Accept(ctx, answer)
}

// Down is closed when the connection is over.
func (p *Peer) Down() <-chan struct{} { return p.down }

// Close hangs up in order and waits.
func (p *Peer) Close() error {
	err := p.pc.Close()
	p.wg.Wait()
	return err
}

// Speak says the signal, 20 ms at a time at the pace of the clock, until ctx ends or the connection does. With RED agreed on
// each packet repeats the one before.
func (p *Peer) Speak(ctx context.Context, signal Signal) error {
	enc, err := mix.NewEncoder(32000)
	if err != nil {
		return err
	}
	red := p.track.redundant()
	p.mu.Lock()
	p.began = time.Now()
	p.mu.Unlock()
	var (
		pcm    = make([]float32, frameLen)
		buf    = make([]byte, 1500)
		last   []byte
		begun  = p.Began()
		ticker = time.NewTimer(0)
	)
	defer ticker.Stop()
	for n := int64(0); ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-p.down:
			return nil
		case <-ticker.C:
		}
		signal(n*frameLen, pcm)
		k, err := enc.Encode(pcm, buf)
		if err != nil {
			return err
		}
		packet := slices.Clone(buf[:k])
		payload := packet
		if red {
			payload = nil
			if last != nil {
				payload = append(payload, 0x80|payloadOpus, byte(frameLen>>6), byte(frameLen&0x3f<<2|len(last)>>8), byte(len(last)))
			}
			payload = append(payload, payloadOpus)
			payload = append(append(payload, last...), packet...)
			last = packet
		}
		if err := p.track.write(rtp.Header{SequenceNumber: uint16(n + 1000), Timestamp: uint32(n*frameLen + 90000)}, payload); err != nil {
			return nil // hung up
		}
		ticker.Reset(time.Until(begun.Add(time.Duration(n+1) * frame)))
	}
}

// Began is when Speak said its first sample; zero before.
func (p *Peer) Began() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.began
}

// Write sends one RTP packet as it is, but for SSRC, and payload type if that is 0.
func (p *Peer) Write(h rtp.Header, payload []byte) error {
	return p.track.write(h, payload)
}

// WriteRTCP sends RTCP packets as they are.
func (p *Peer) WriteRTCP(packets ...rtcp.Packet) error { return p.pc.WriteRTCP(packets) }

// control reads RTCP until the connection ends: the interceptors see it only so.
func (p *Peer) control(read func([]byte) (int, interceptor.Attributes, error)) {
	p.wg.Go(func() {
		buf := make([]byte, 1600)
		for {
			if _, _, err := read(buf); err != nil {
				return
			}
		}
	})
}

func (p *Peer) listen(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	p.wg.Add(1)
	defer p.wg.Done()
	p.control(receiver.Read)
	buf := make([]byte, 1600)
	for {
		n, _, err := remote.Read(buf)
		if err != nil {
			return
		}
		at := time.Now()
		var packet rtp.Packet
		if packet.Unmarshal(slices.Clone(buf[:n])) != nil || len(packet.Payload) == 0 {
			continue
		}
		p.mu.Lock()
		if packet.PayloadType == payloadRED {
			p.heard = append(p.heard, unfold(&packet, at)...)
		} else {
			p.heard = append(p.heard, Heard{Seq: packet.SequenceNumber, TS: packet.Timestamp, Payload: packet.Payload, At: at})
		}
		p.mu.Unlock()
	}
}

// unfold reads RED with at most one repetition, which is what the server sends.
func unfold(p *rtp.Packet, at time.Time) []Heard {
	b := p.Payload
	var out []Heard
	if b[0]&0x80 != 0 && len(b) > 5 {
		offset, n := uint32(b[1])<<6|uint32(b[2])>>2, int(b[2]&3)<<8|int(b[3])
		if b = b[5:]; n > len(b) {
			return nil
		}
		out = append(out, Heard{Seq: p.SequenceNumber - 1, TS: p.Timestamp - offset, Payload: b[:n], Repeat: true, At: at})
		b = b[n:]
	} else {
		b = b[1:]
	}
	return append(out, Heard{Seq: p.SequenceNumber, TS: p.Timestamp, Payload: b, At: at})
}

// Heard gives what arrived so far, in the order of arrival.
func (p *Peer) Heard() []Heard {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.heard)
}

// Forget drops what arrived so far.
func (p *Peer) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = nil
}

// Recording is what a perfectly patient listener makes of the packets: each in its place, however late.
type Recording struct {
	PCM       []float32
	First     uint32 // RTP timestamp of the first sample
	Frames    int
	Concealed int // frames that never came
	Repaired  int // frames that came only as repetitions
}

// Decode puts packets in order and decodes them.
func Decode(heard []Heard) (Recording, error) {
	var r Recording
	if len(heard) == 0 {
		return r, errors.New("nothing was heard")
	}
	byTime := make(map[int32]Heard, len(heard))
	base, last := heard[0].TS, int32(0)
	lowest := int32(0)
	for _, h := range heard {
		d := int32(h.TS - base)
		if old, ok := byTime[d]; !ok || old.Repeat && !h.Repeat {
			byTime[d] = h
		}
		lowest, last = min(lowest, d), max(last, d)
	}
	dec, err := mix.NewDecoder()
	if err != nil {
		return r, err
	}
	r.First = base + uint32(lowest)
	pcm := make([]float32, 5760)
	for d := lowest; d <= last; d += frameLen {
		h, ok := byTime[d]
		r.Frames++
		if !ok {
			r.Concealed++
			if err := dec.Conceal(pcm[:frameLen]); err != nil {
				return r, err
			}
			r.PCM = append(r.PCM, pcm[:frameLen]...)
			continue
		}
		if h.Repeat {
			r.Repaired++
		}
		n, err := dec.Decode(h.Payload, pcm)
		if err != nil {
			return r, err
		}
		r.PCM = append(r.PCM, pcm[:n]...)
	}
	return r, nil
}

// Quiet is a logger for tests that have nothing to say.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
