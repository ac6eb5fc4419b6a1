//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// answerCmd is the crowd for servers that make the offer themselves, which WHEP has no room for. A listener is a whole Pion connection,
// so some hundreds are what a core can play.
type answerCmd struct {
	Janus     string        `help:"Janus's WebSocket, a loopback address; mountpoint 1 is watched." placeholder:"HOST:PORT" xor:"whom"`
	Livekit   string        `help:"LiveKit's WebSocket, a loopback address; room bench is joined." placeholder:"HOST:PORT" xor:"whom"`
	Feed      string        `help:"Send the programme to this loopback address as RTP, until standard input ends." placeholder:"HOST:PORT" xor:"whom"`
	Publish   bool          `help:"With --livekit: be the one who speaks, until standard input ends."`
	Listeners int           `default:"100" help:"How many."`
	Arrive    time.Duration `default:"5s" help:"All come within this time."`
	Hold      time.Duration `default:"10s" help:"And then stay for this time."`
	JSON      string        `help:"Where the report goes, in the form of the crowd's." placeholder:"FILE"`
}

// signaller brings a server's offer and takes the answer back. Closing it ends the session.
type signaller interface {
	// listen gives the server's offer to answer, and whatever it sends later to add; it returns when the answer was delivered.
	listen(ctx context.Context, answer func(offer string) (string, error), add func(webrtc.ICECandidateInit) error) error
	Close() error
}

// Run listens, or speaks.
func (c *answerCmd) Run(ctx context.Context) error {
	only := "lo"
	if c.Janus != "" {
		only = janusInterface
	}
	api, err := loopbackAPI(only)
	if err != nil {
		return err
	}
	where := c.Janus + c.Livekit + c.Feed
	if err := onLoopback(where); err != nil {
		return err
	}
	if c.Feed != "" {
		p, err := makeProgramme()
		if err != nil {
			return err
		}
		f, err := p.rtp(ctx, where)
		if err != nil {
			return err
		}
		defer f.stop()
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	}
	if c.Publish {
		return publishLiveKit(ctx, api, where)
	}
	open := func(n int) (signaller, error) { return dialLiveKit(ctx, where, fmt.Sprintf("listener-%d", n), false) }
	if c.Janus != "" {
		j, err := dialJanus(ctx, where)
		if err != nil {
			return err
		}
		defer func() { _ = j.Close() }()
		open = func(int) (signaller, error) { return j.attach(ctx) }
	}
	return c.crowd(ctx, api, open)
}

func onLoopback(s string) error {
	u, err := url.Parse("//" + s)
	if err != nil || net.ParseIP(u.Hostname()) == nil || !net.ParseIP(u.Hostname()).IsLoopback() {
		return fmt.Errorf("target %q: want a loopback address and a port", s)
	}
	return nil
}

// loopbackAPI makes connections that know Opus and one interface only, without interceptors: as light as Pion is.
func loopbackAPI(only string) (*webrtc.API, error) {
	var media webrtc.MediaEngine
	err := media.RegisterCodec(webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"},
		PayloadType:        111,
	}, webrtc.RTPCodecTypeAudio)
	if err != nil {
		return nil, fmt.Errorf("set up Opus: %w", err)
	}
	var set webrtc.SettingEngine
	set.SetIncludeLoopbackCandidate(true)
	set.SetInterfaceFilter(func(name string) bool { return name == only })
	set.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	return webrtc.NewAPI(webrtc.WithMediaEngine(&media), webrtc.WithSettingEngine(set)), nil
}

// counts is what listeners add up.
type counts struct {
	mu                  sync.Mutex
	joined              int
	failed              map[string]int64
	joins, firsts       []float64
	frames, lost        int64
	measuring, stopping bool
}

// crowd brings the listeners, evenly over the time, and reports.
func (c *answerCmd) crowd(ctx context.Context, api *webrtc.API, open func(n int) (signaller, error)) error {
	sum := &counts{failed: map[string]int64{}}
	ctx, cancel := context.WithCancel(ctx)
	begun := time.Now()
	var all sync.WaitGroup
	for n := range c.Listeners {
		all.Go(func() {
			select {
			case <-time.After(time.Until(begun.Add(c.Arrive * time.Duration(n) / time.Duration(c.Listeners)))):
			case <-ctx.Done():
				return
			}
			if err := one(ctx, api, sum, func() (signaller, error) { return open(n) }); err != nil && ctx.Err() == nil {
				sum.mu.Lock()
				sum.failed[err.Error()]++
				sum.mu.Unlock()
			}
		})
	}
	set := func(f func()) { sum.mu.Lock(); f(); sum.mu.Unlock() }
	sleep := func(until time.Duration) {
		select {
		case <-time.After(time.Until(begun.Add(until))):
		case <-ctx.Done():
		}
	}
	sleep(c.Arrive + settle)
	set(func() { sum.measuring = true })
	sleep(c.Arrive + c.Hold)
	set(func() { sum.measuring, sum.stopping = false, true })
	cancel()
	all.Wait()
	r := report{Joined: sum.joined, Failed: sum.failed, LostFrames: sum.lost, Frames: sum.frames, Join: spreadOf(sum.joins), First: spreadOf(sum.firsts)}
	b, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.WriteFile(c.JSON, b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// one is a listener, from dialling to the end of ctx.
func one(ctx context.Context, api *webrtc.API, sum *counts, open func() (signaller, error)) error {
	begun := time.Now()
	s, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return fmt.Errorf("connection: %w", err)
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() { _ = pc.Close() }()
	heard := make(chan struct{})
	var once sync.Once
	pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		reading.Add(1)
		defer reading.Done()
		listenTo(t, sum, func() { once.Do(func() { close(heard) }) })
	})
	add := &early{pc: pc}
	answer := func(offer string) (string, error) {
		if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
			return "", fmt.Errorf("take the offer: %w", err)
		}
		a, err := pc.CreateAnswer(nil)
		if err != nil {
			return "", fmt.Errorf("answer: %w", err)
		}
		gathered := webrtc.GatheringCompletePromise(pc)
		if err := pc.SetLocalDescription(a); err != nil {
			return "", fmt.Errorf("answer: %w", err)
		}
		<-gathered
		return pc.LocalDescription().SDP, add.ready()
	}
	if err := s.listen(ctx, answer, add.candidate); err != nil {
		return err
	}
	sum.mu.Lock()
	sum.joins = append(sum.joins, float64(time.Since(begun).Microseconds())/1e3)
	sum.mu.Unlock()
	select {
	case <-heard:
	case <-time.After(15 * time.Second):
		return errors.New("no sound within 15 s")
	case <-ctx.Done():
		return nil
	}
	sum.mu.Lock()
	sum.joined++
	sum.firsts = append(sum.firsts, float64(time.Since(begun).Microseconds())/1e3)
	sum.mu.Unlock()
	<-ctx.Done()
	return nil
}

// listenTo counts the packets of a track, and those that are missing between them while it is measured.
func listenTo(t *webrtc.TrackRemote, sum *counts, first func()) {
	buf := make([]byte, 1500)
	var last uint16
	known := false
	for {
		n, _, err := t.Read(buf)
		if err != nil {
			return
		}
		var h rtp.Header
		if _, err := h.Unmarshal(buf[:n]); err != nil {
			continue
		}
		first()
		sum.mu.Lock()
		if sum.measuring {
			step := int64(1)
			if known {
				step = max(0, int64(int16(h.SequenceNumber-last)))
			}
			sum.frames += step
			sum.lost += max(0, step-1)
		}
		sum.mu.Unlock()
		last, known = h.SequenceNumber, true
	}
}

// early keeps candidates that come before the offer was taken.
type early struct {
	mu    sync.Mutex
	pc    *webrtc.PeerConnection
	open  bool
	queue []webrtc.ICECandidateInit
}

func (e *early) candidate(c webrtc.ICECandidateInit) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.open {
		e.queue = append(e.queue, c)
		return nil
	}
	return e.pc.AddICECandidate(c)
}

func (e *early) ready() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open = true
	for _, c := range e.queue {
		if err := e.pc.AddICECandidate(c); err != nil {
			return fmt.Errorf("take a candidate: %w", err)
		}
	}
	e.queue = nil
	return nil
}
