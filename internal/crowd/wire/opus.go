package wire

// OpusSamples is how long an Opus packet sounds, in samples at 48 kHz (RFC 6716, 3.1 and 3.2.5); 0 if it is none.
func OpusSamples(packet []byte) int {
	if len(packet) == 0 {
		return 0
	}
	per, config := 0, packet[0]>>3
	switch {
	case config < 12:
		per = [4]int{480, 960, 1920, 2880}[config&3]
	case config < 16:
		per = [2]int{480, 960}[config&1]
	default:
		per = 120 << (config & 3)
	}
	switch packet[0] & 3 {
	case 0:
		return per
	case 1, 2:
		return 2 * per
	}
	if len(packet) < 2 {
		return 0
	}
	n := int(packet[1]&0x3f) * per
	if n > 5760 {
		return 0
	}
	return n
}
