package timeline

import "encoding/binary"

// The chunks are CMAF (ISO/IEC 23000-19) in the ISO base media file format (ISO/IEC 14496-12): an initialisation segment with
// one audio track, then for each part one moof with one track fragment, and one mdat. Opus is carried by "Encapsulation of
// Opus in ISO Base Media File Format" (version 0.8.1). The decode time of a frame is its number × 960.

// InitType is the media type of the initialisation segment and of what follows it.
const InitType = `audio/mp4; codecs="opus"`

// CueScheme is the scheme of the emsg boxes (ISO/IEC 23009-1, 5.10.3.3) whose message is the JSON array of a part's cues.
const CueScheme = "urn:earshot:cues"

const (
	timescale = 48000
	trackID   = 1

	// cmafPreSkip is the number of samples that a decoder is asked to drop at the start. A file would give the encoder's
	// look-ahead, 312. But this stream is never joined at its start: whoever joins has no such samples to drop, and ffmpeg, asked to,
	// drops the first 312 of whatever part it began with (tried with 5.1: 0 and 312 both read without a warning, 0 gives every
	// sample of every frame at number × 960).
	cmafPreSkip = 0

	emsgFixed = 8 + 4 + 4 + 8 + 4 + 4 + len(CueScheme) + 1 + 1
	mfhdSize  = 8 + 4 + 4
	tfhdSize  = 8 + 4 + 4 + 4
	tfdtSize  = 8 + 4 + 8
	trunFixed = 8 + 4 + 4 + 4
	moofFixed = 8 + mfhdSize + 8 + tfhdSize + tfdtSize + trunFixed // and 4 bytes per frame

	tfhdFlags = 0x020000 | 0x000008 // default-base-is-moof, default-sample-duration-present
	trunFlags = 0x000001 | 0x000200 // data-offset-present, sample-size-present
)

// Init is the initialisation segment: ftyp, moov. It is the same for every event; shared, not to be modified.
func Init() []byte { return initSegment }

var initSegment = makeInit()

var be = binary.BigEndian

// chunkSize is the exact length of a part's CMAF.
func chunkSize(packets [][]byte, cues []byte) int {
	n := moofFixed + 4*len(packets) + 8
	for _, p := range packets {
		n += len(p)
	}
	if cues != nil {
		n += emsgFixed + len(cues)
	}
	return n
}

// appendEmsg adds an event message box, version 1: its time is on the media's own timeline.
func appendEmsg(b []byte, number, first uint64, frames int, message []byte) []byte {
	b = header(b, emsgFixed+len(message), "emsg")
	b = be.AppendUint32(b, 1<<24)
	b = be.AppendUint32(b, timescale)
	b = be.AppendUint64(b, first*samplesPerFrame)
	b = be.AppendUint32(b, uint32(frames*samplesPerFrame))
	b = be.AppendUint32(b, uint32(number))
	b = append(b, CueScheme...)
	b = append(b, 0, 0) // ends the scheme; an empty value
	return append(b, message...)
}

// appendMedia adds moof and mdat.
func appendMedia(b []byte, number, first uint64, packets [][]byte) []byte {
	moof := moofFixed + 4*len(packets)
	trun := trunFixed + 4*len(packets)
	b = header(b, moof, "moof")
	b = header(b, mfhdSize, "mfhd")
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, sequence(number))
	b = header(b, 8+tfhdSize+tfdtSize+trun, "traf")
	b = header(b, tfhdSize, "tfhd")
	b = be.AppendUint32(b, tfhdFlags)
	b = be.AppendUint32(b, trackID)
	b = be.AppendUint32(b, samplesPerFrame)
	b = header(b, tfdtSize, "tfdt")
	b = be.AppendUint32(b, 1<<24) // version 1: 64 bits
	b = be.AppendUint64(b, first*samplesPerFrame)
	b = header(b, trun, "trun")
	b = be.AppendUint32(b, trunFlags)
	b = be.AppendUint32(b, uint32(len(packets)))
	b = be.AppendUint32(b, uint32(moof+8)) // from the start of moof to the first packet
	size := 8
	for _, p := range packets {
		b = be.AppendUint32(b, uint32(len(p)))
		size += len(p)
	}
	b = header(b, size, "mdat")
	for _, p := range packets {
		b = append(b, p...)
	}
	return b
}

// sequence is the fragment's number: it starts at 1 (ISO/IEC 14496-12, 8.8.5).
func sequence(part uint64) uint32 { return uint32(part) + 1 }

func header(b []byte, size int, kind string) []byte {
	return append(be.AppendUint32(b, uint32(size)), kind...)
}

// box wraps what the parts hold.
func box(kind string, parts ...[]byte) []byte {
	size := 8
	for _, p := range parts {
		size += len(p)
	}
	b := header(make([]byte, 0, size), size, kind)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func u16(v ...uint16) (b []byte) {
	for _, v := range v {
		b = be.AppendUint16(b, v)
	}
	return b
}

func u32(v ...uint32) (b []byte) {
	for _, v := range v {
		b = be.AppendUint32(b, v)
	}
	return b
}

// makeInit writes ftyp and moov. Durations are zero: they are not known (8.2.2.3 leaves them to the fragments).
func makeInit() []byte {
	unity := u32(0x00010000, 0, 0, 0, 0x00010000, 0, 0, 0, 0x40000000)
	dOps := box("dOps",
		[]byte{0, 1},     // version, channels
		u16(cmafPreSkip), //
		u32(timescale),   // sample rate of the input
		u16(0),           // gain
		[]byte{0},        // mapping family: mono or stereo
	)
	entry := box("Opus",
		make([]byte, 6), u16(1), // reserved, data reference
		make([]byte, 8),    //
		u16(1, 16, 0, 0),   // channels, bits per sample, reserved
		u32(timescale<<16), // 16.16
		dOps,
	)
	table := func(kind string, words int) []byte { return box(kind, make([]byte, 4*(words+1))) } // empty
	stbl := box("stbl",
		box("stsd", u32(0, 1), entry),
		table("stts", 1), table("stsc", 1), table("stsz", 2), table("stco", 1),
	)
	minf := box("minf",
		box("smhd", u32(0, 0)),
		box("dinf", box("dref", u32(0, 1), box("url ", u32(1)))), // flag 1: in this file
		stbl,
	)
	mdia := box("mdia",
		box("mdhd", u32(0, 0, 0, timescale, 0), u16(0x55c4, 0)), // language "und"
		box("hdlr", u32(0, 0), []byte("soun"), make([]byte, 12), []byte("Earshot\x00")),
		minf,
	)
	trak := box("trak",
		box("tkhd", u32(7, 0, 0, trackID, 0, 0, 0, 0), u16(0, 0, 0x0100, 0), unity, u32(0, 0)), // enabled, in movie, in preview
		mdia,
	)
	const independent = 0x02000000 // sample flags: depends on no other
	moov := box("moov",
		box("mvhd", u32(0, 0, 0, timescale, 0, 0x00010000), u16(0x0100, 0), u32(0, 0), unity, make([]byte, 24), u32(trackID+1)),
		trak,
		box("mvex", box("trex", u32(0, trackID, 1, samplesPerFrame, 0, independent))),
	)
	ftyp := box("ftyp", []byte("iso6"), u32(0), []byte("iso6cmfcmp41"))
	return append(ftyp, moov...)
}
