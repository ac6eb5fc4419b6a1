package timeline

// MaxRepack is how many frames one packet can carry: 120 ms, the most that RFC 6716 allows, in frames of 20 ms.
const MaxRepack = maxOpusTime / samplesPerFrame

// Repack appends to dst one packet that holds the frames of all the given ones, which must sound alike: equal TOC but for the code
// (RFC 6716, 3.2.5). The Opus frames in it are the same bytes as before, so nothing is decoded and nothing is lost. It says no, and
// gives dst as it was, if the packets cannot stand together: different TOCs, more than 120 ms, or framing that is not Opus.
//
// Packets of the timeline are one frame each; that is the short way. Others are taken apart first.
func Repack(dst []byte, packets ...[]byte) ([]byte, bool) {
	var many [maxOpusFrames][]byte
	frames := many[:0]
	if len(packets) == 0 || len(packets) > maxOpusFrames {
		return dst, false
	}
	if len(packets) == 1 {
		return append(dst, packets[0]...), len(packets[0]) > 0
	}
	for _, p := range packets {
		if len(p) == 0 || p[0]&^3 != packets[0][0]&^3 {
			return dst, false
		}
		if p[0]&3 == 0 && len(p) <= MaxPacket {
			if len(frames) == maxOpusFrames {
				return dst, false
			}
			frames = append(frames, p[1:])
			continue
		}
		var ok bool
		if frames, ok = splitFrames(frames, p); !ok {
			return dst, false
		}
	}
	toc := packets[0][0]
	if len(frames)*frameSamples(toc>>3) > maxOpusTime {
		return dst, false
	}
	equal := true
	for _, f := range frames {
		equal = equal && len(f) == len(frames[0])
	}
	dst = append(dst, toc|3)
	if equal {
		dst = append(dst, byte(len(frames)))
	} else {
		dst = append(dst, byte(len(frames))|0x80)
		for _, f := range frames[:len(frames)-1] {
			if len(f) < 252 {
				dst = append(dst, byte(len(f)))
			} else {
				first := byte(252 + len(f)&3)
				dst = append(dst, first, byte((len(f)-int(first))/4))
			}
		}
	}
	for _, f := range frames {
		dst = append(dst, f...)
	}
	return dst, true
}

// Unpack appends to dst the Opus frames that a packet holds, each as a packet of its own, which points into a copy. It is the inverse of
// Repack for whoever needs single frames. It says no to what is not an Opus packet.
func Unpack(dst [][]byte, packet []byte) ([][]byte, bool) {
	var many [maxOpusFrames][]byte
	frames, ok := splitFrames(many[:0], packet)
	if !ok {
		return dst, false
	}
	size := 0
	for _, f := range frames {
		size += 1 + len(f)
	}
	buf := make([]byte, 0, size)
	for _, f := range frames {
		at := len(buf)
		buf = append(append(buf, packet[0]&^3), f...)
		dst = append(dst, buf[at:len(buf):len(buf)])
	}
	return dst, true
}

// splitFrames appends the frames of a packet (RFC 6716, 3.2), without padding, to frames, whose capacity is the limit.
func splitFrames(frames [][]byte, packet []byte) ([][]byte, bool) {
	if CheckPacket(packet) != nil {
		return frames, false
	}
	add := func(b []byte) bool {
		if len(frames) == cap(frames) {
			return false
		}
		frames = append(frames, b)
		return true
	}
	rest := packet[1:]
	switch packet[0] & 3 {
	case 0:
		return frames, add(rest)
	case 1:
		half := len(rest) / 2
		ok := add(rest[:half]) && add(rest[half:])
		return frames, ok
	case 2:
		n, rest, _ := frameSize(rest)
		ok := add(rest[:n]) && add(rest[n:])
		return frames, ok
	}
	head := rest[0]
	count, rest := int(head&0x3f), rest[1:]
	if head&0x40 != 0 {
		padding := 0
		for {
			n := int(rest[0])
			rest = rest[1:]
			if n < 255 {
				padding += n
				break
			}
			padding += 254
		}
		rest = rest[:len(rest)-padding]
	}
	if head&0x80 == 0 {
		each := len(rest) / count
		for i := range count {
			if !add(rest[i*each : (i+1)*each]) {
				return frames, false
			}
		}
		return frames, true
	}
	var sizes [maxOpusFrames]int
	for i := range count - 1 {
		sizes[i], rest, _ = frameSize(rest)
	}
	for i := range count - 1 {
		if !add(rest[:sizes[i]]) {
			return frames, false
		}
		rest = rest[sizes[i]:]
	}
	return frames, add(rest)
}
