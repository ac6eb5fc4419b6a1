// Package peer is what the server's WebRTC connections have in common, those of speakers (rtc) and those of listeners (fan):
// every offer is judged before the WebRTC library sees it, every connection is ICE-lite on one port that they all share, speaks
// Opus and nothing else, encrypts with AES-GCM where the other side can, resolves no names and connects to nobody.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"

	"earshot/internal/event"
)

// Config of a Maker.
type Config struct {
	UDPMux ice.UDPMux // the shared port
	TCPMux ice.TCPMux // the same port number over TCP; nil: none

	// Advertise replaces the addresses that candidates carry, for a server behind a one-to-one NAT. Empty: the listening
	// address; where that is unspecified, all interfaces' addresses.
	Advertise []netip.Addr

	// Silent is how long nothing may come from the other side before the connection is given up; default 30 s, as consent
	// lapses then (RFC 7675, 5.1). Speakers' is shorter, so that the room learns of a lost voice.
	Silent time.Duration

	Fmtp string // parameters of Opus in answers (RFC 7587, 7.1)
	RED  bool   // prefer RED where it was offered

	Interceptors func(*interceptor.Registry) error // nil: none
	Log          *slog.Logger
}

// Maker makes answering connections.
type Maker struct {
	cfg Config
	// The library's API is fixed to one DTLS role and one set of codecs, so there are settings for each combination: index by [passive][red].
	kits [2][2]*kit
}

// kit is what an API is made from.
type kit struct {
	settings webrtc.SettingEngine
	codecs   webrtc.MediaEngine
	registry interceptor.Registry
}

// api makes one for a single connection, whose streams and paths are counted.
func (k *kit) api(s *streams) *webrtc.API {
	settings := k.settings
	settings.BufferFactory = s.buffer
	settings.SetRemoteIPFilter(s.path)
	return webrtc.NewAPI(
		webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(&k.codecs), webrtc.WithInterceptorRegistry(&k.registry))
}

// New prepares the settings that all connections share.
func New(cfg Config) (*Maker, error) {
	if cfg.Silent == 0 {
		cfg.Silent = 30 * time.Second
	}
	m := &Maker{cfg: cfg}
	for passive := range m.kits {
		for red := range m.kits[passive] {
			k, err := m.kit(passive == 1, red == 1)
			if err != nil {
				return nil, fmt.Errorf("prepare WebRTC: %w", err)
			}
			m.kits[passive][red] = k
		}
	}
	return m, nil
}

func (m *Maker) kit(passive, red bool) (*kit, error) {
	var k kit
	s := &k.settings
	s.LoggerFactory = Logs(m.cfg.Log)
	s.SetLite(true)
	s.SetICEUDPMux(m.cfg.UDPMux)
	networks := []webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6}
	if m.cfg.TCPMux != nil {
		s.SetICETCPMux(m.cfg.TCPMux)
		networks = append(networks, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6)
	}
	s.SetNetworkTypes(networks)
	s.DisableActiveTCP(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(onlyLoopback(m.cfg.UDPMux.GetListenAddresses()))
	s.SetICETimeouts(m.cfg.Silent/2, m.cfg.Silent-m.cfg.Silent/2, 0)
	if len(m.cfg.Advertise) > 0 {
		rule := webrtc.ICEAddressRewriteRule{AsCandidateType: webrtc.ICECandidateTypeHost, Mode: webrtc.ICEAddressRewriteReplace}
		for _, a := range m.cfg.Advertise {
			rule.External = append(rule.External, a.Unmap().String())
		}
		if err := s.SetICEAddressRewriteRules(rule); err != nil {
			return nil, err
		}
	}
	// The other side begins DTLS wherever it may: then nothing is sent to an address that did not pass STUN's integrity
	// check, and for the same reason the cookie round trip of RFC 6347, 4.2.1 is not needed.
	if !passive {
		if err := s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
			return nil, err
		}
	}
	s.SetDTLSInsecureSkipHelloVerify(true)
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)

	if red {
		if err := k.codecs.RegisterCodec(webrtc.RTPCodecParameters{
			RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: MimeRED, ClockRate: event.SampleRate, Channels: 2, SDPFmtpLine: "111/111"},
			PayloadType:        63,
		}, webrtc.RTPCodecTypeAudio); err != nil {
			return nil, err
		}
	}
	if err := k.codecs.RegisterCodec(webrtc.RTPCodecParameters{
		RTPCodecCapability: Opus(m.cfg.Fmtp), PayloadType: PayloadOpus,
	}, webrtc.RTPCodecTypeAudio); err != nil {
		return nil, err
	}
	if m.cfg.Interceptors != nil {
		if err := m.cfg.Interceptors(&k.registry); err != nil {
			return nil, err
		}
	}
	return &k, nil
}

// MimeRED is redundant audio (RFC 2198). It is spoken only over Opus with its usual payload type, which its parameters name.
const (
	MimeRED     = "audio/red"
	PayloadOpus = 111
)

// Opus is the one codec spoken here, with these format parameters.
func Opus(fmtp string) webrtc.RTPCodecCapability {
	return webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeOpus, ClockRate: event.SampleRate, Channels: 2, SDPFmtpLine: fmtp,
		RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}},
	}
}

func onlyLoopback(addrs []net.Addr) bool {
	for _, a := range addrs {
		if u, ok := a.(*net.UDPAddr); !ok || !u.IP.IsLoopback() {
			return false
		}
	}
	return true
}

// Answer makes a connection that answers the offer. setup is called on it first, to add what it sends and receives and the
// callbacks; ready when the answer is certain but nothing was given away, to join what may refuse. An error of either is
// returned as it is. What the library refuses becomes an *event.Error. On error the connection is closed. flooded is called
// once if the other side opens more streams than anybody needs; it must not block, and should have the connection closed.
func (m *Maker) Answer(ctx context.Context, o *Offer, setup, ready func(*webrtc.PeerConnection) error, flooded func()) (
	pc *webrtc.PeerConnection, answer []byte, err error,
) {
	passive, red := 0, 0
	if o.Passive {
		passive = 1
	}
	if m.cfg.RED && o.RED != 0 {
		red = 1
	}
	pc, err = m.kits[passive][red].api(&streams{flooded: flooded}).NewPeerConnection(webrtc.Configuration{
		BundlePolicy: webrtc.BundlePolicyMaxBundle, RTCPMuxPolicy: webrtc.RTCPMuxPolicyRequire,
	})
	if err != nil {
		return nil, nil, event.Unavailable("The server cannot take another connection.", err)
	}
	defer func() {
		if err != nil {
			_ = pc.Close()
			pc = nil
		}
	}()
	if err = setup(pc); err != nil {
		return pc, nil, err
	}
	refused := func(err error) error {
		return &event.Error{Code: event.CodeInvalid, Field: "offer", Message: "The offer could not be understood.", Err: err}
	}
	if err = pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.SDP}); err != nil {
		return pc, nil, refused(err)
	}
	desc, err := pc.CreateAnswer(nil)
	if err != nil {
		return pc, nil, refused(err)
	}
	if err = ready(pc); err != nil {
		return pc, nil, err
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err = pc.SetLocalDescription(desc); err != nil {
		return pc, nil, refused(err)
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return pc, nil, ctx.Err()
	}
	local := pc.LocalDescription()
	if local == nil {
		return pc, nil, event.Unavailable("The connection closed while it was being made.", errors.New("no local description"))
	}
	return pc, o.polish(local.SDP, m.cfg.Fmtp), nil
}
