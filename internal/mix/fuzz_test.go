package mix_test

import (
	"math"
	"testing"
	"time"

	"earshot/internal/mix"
)

// FuzzVoice takes packets and frames from the data: whatever comes, a frame is made, it is no louder than the ceiling and it is finite.
func FuzzVoice(f *testing.F) {
	s := newSender(f, speech(130, -20))
	var seed []byte
	for range 6 {
		p := s.next(0).Payload
		seed = append(seed, 1, 0, 3, 192, byte(len(p)))
		seed = append(seed, p...)
		seed = append(seed, 0)
	}
	f.Add(seed)
	f.Add([]byte{1, 0, 3, 192, 2, 0x78, 0, 0, 0, 0, 0, 1, 200, 3, 192, 2, 0x78, 0, 1, 255, 3, 192, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 4, 0x7b, 6, 1, 2, 2, 128, 128, 0, 3, 0xfb, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := mix.NewDesk(mix.Config{Complexity: 1})
		if err != nil {
			t.Fatal(err)
		}
		v, err := d.Add(mix.VoiceOptions{Hears: true})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Duration(0)
		var seq uint16
		var ts uint32
		pushed, frames := uint64(0), 0
		for len(data) >= 1 && frames < 200 {
			op := data[0]
			data = data[1:]
			switch {
			case op == 0 || len(data) < 4: // a frame
				frames++
				now += tick
				p, err := d.Mix(now, true)
				if err != nil || len(p) == 0 || len(v.Minus()) == 0 {
					t.Fatalf("frame %d: %d bytes, minus %d bytes, %v", frames, len(p), len(v.Minus()), err)
				}
				for _, x := range d.PCM() {
					if !(math.Abs(float64(x)) <= 0.9) {
						t.Fatalf("frame %d: a sample of %v", frames, x)
					}
				}
			default: // a packet: steps of numbers, length, payload
				if op&1 != 0 {
					seq++
				} else {
					seq += uint16(data[0]) << (op >> 4)
				}
				ts += (uint32(data[1])<<8 | uint32(data[2])) << (op >> 3 & 15)
				n := min(int(data[3]), len(data)-4)
				v.Push(mix.Packet{Seq: seq, TS: ts, Payload: data[4 : 4+n], Arrived: now})
				data = data[4+n:]
				pushed++
			}
		}
		s := v.Stats()
		if all := s.Received + s.Late + s.Duplicate + s.Undecodable + s.Strange; all < pushed || s.BufferMS > 5000 {
			t.Fatalf("%d packets, counted %d: %+v", pushed, all, s)
		}
	})
}
