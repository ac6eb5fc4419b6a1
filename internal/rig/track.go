package rig

import (
	"sync"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// voice is a local track that sends RED if that was agreed on, else Opus: the library's own is fixed to one codec before the
// answer is known.
type voice struct {
	mu     sync.Mutex
	stream webrtc.TrackLocalWriter // nil before the connection is up
	ssrc   uint32
	pt     uint8
	red    bool
}

// Bind is called when the answer is in.
func (v *voice) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var chosen *webrtc.RTPCodecParameters
	for _, codec := range c.CodecParameters() {
		if codec.MimeType == "audio/red" || chosen == nil && codec.MimeType == webrtc.MimeTypeOpus {
			chosen = &codec
		}
	}
	if chosen == nil {
		return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
	}
	v.stream, v.ssrc, v.pt = c.WriteStream(), uint32(c.SSRC()), uint8(chosen.PayloadType)
	v.red = chosen.MimeType == "audio/red"
	return *chosen, nil
}

// Unbind is called when the connection ends.
func (v *voice) Unbind(webrtc.TrackLocalContext) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stream = nil
	return nil
}

func (v *voice) ID() string                { return "voice" }
func (v *voice) RID() string               { return "" }
func (v *voice) StreamID() string          { return "rig" }
func (v *voice) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeAudio }

// write sends one packet under the agreed SSRC and payload type; before the connection is up it sends nothing.
func (v *voice) write(h rtp.Header, payload []byte) error {
	v.mu.Lock()
	stream := v.stream
	h.Version, h.SSRC = 2, v.ssrc
	if h.PayloadType == 0 {
		h.PayloadType = v.pt
	}
	v.mu.Unlock()
	if stream == nil {
		return nil
	}
	_, err := stream.WriteRTP(&h, payload)
	return err
}

func (v *voice) redundant() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.red
}
