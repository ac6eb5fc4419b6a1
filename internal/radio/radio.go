// Package radio makes AAC and MP3 of a programme, for players that do not know Opus: old radios, Apple's HLS player, whatever an
// operator's listeners have. The codecs are ffmpeg's, a child process beside this one, for each timeline and form one, which runs only
// while somebody wants what it makes.
//
// [Convert] feeds the child the timeline's Ogg pages and cuts what comes back, a stream of frames without a clock, into a [Piece] for
// each part. It can, because it counts: a child that was given its first sample at B gives frames of which number k begins at B − delay
// + k × size, where the delay is the encoder's, known and tested. B always lies on a multiple of the frame's size (the Ogg header's
// pre-skip sees to that), so all children of all nodes that ever convert a part make frames at the same places: a child that died is
// followed by one that goes on where it stopped, and the listeners' connections, which are not its business, have everything.
//
// Beside that: [Find] says whether there is an ffmpeg that can do it, [Station] keeps pieces as HLS segments, [Titles] makes the blocks of
// metadata that radio players ask for.
package radio

import (
	"strconv"

	"earshot/internal/event"
)

// Form is a codec with its framing.
type Form int

// The forms.
const (
	AAC   Form = iota // AAC-LC in ADTS (ISO/IEC 14496-3, 1.A.3.2)
	MP3               // MPEG-1 layer III (ISO/IEC 11172-3)
	Forms = iota
)

// BitRate is what both forms have, in bit/s: mono at a rate at which neither adds much to what Opus left.
const BitRate = 64000

// sampleRate of all forms, in Hz: the timeline's.
const sampleRate = event.FrameSamples * event.FramesPerSec

// shape is what is to be known of a form.
type shape struct {
	name    string
	kind    string // media type
	encoder string // ffmpeg's
	size    int64  // samples in a frame
	delay   int64  // samples by which frame 0 begins before the first sample that the encoder got
	args    []string
	cut     func([]byte) (int, error)
}

var shapes = [Forms]shape{
	AAC: {
		name: "aac", kind: "audio/aac", encoder: "aac", size: 1024, delay: 1024, cut: cutADTS,
		args: []string{"-f", "adts"},
	},
	// Without its reservoir of bits each frame of MP3 stands alone: whoever begins at one, or is handed on from one child to the next,
	// hears it whole. The delay is LAME's 576, and 529 of every decoder.
	MP3: {
		name: "mp3", kind: "audio/mpeg", encoder: "libmp3lame", size: 1152, delay: 576 + 529, cut: cutMPEG,
		args: []string{"-reservoir", "0", "-write_xing", "0", "-id3v2_version", "0", "-write_id3v1", "0", "-f", "mp3"},
	},
}

// String is the form's name in metrics and addresses.
func (f Form) String() string { return shapes[f].name }

// MediaType is the Content-Type of a stream in this form.
func (f Form) MediaType() string { return shapes[f].kind }

// arguments are the command line of a child.
func (f Form) arguments() []string {
	s := shapes[f]
	args := []string{
		"-nostdin", "-hide_banner", "-loglevel", "error",
		// What comes in is known: looking into it would only cost time.
		"-protocol_whitelist", "pipe", "-fflags", "+nobuffer", "-probesize", "4096", "-analyzeduration", "0", "-threads", "1",
		"-f", "ogg", "-i", "pipe:0",
		"-map", "0:a:0", "-c:a", s.encoder, "-b:a", strconv.Itoa(BitRate), "-ac", "1", "-ar", strconv.Itoa(sampleRate),
		"-flags:a", "+bitexact", "-fflags", "+bitexact", "-flush_packets", "1",
	}
	return append(append(args, s.args...), "pipe:1")
}
