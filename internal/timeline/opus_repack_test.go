package timeline_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"earshot/internal/timeline"
)

// What is put together comes apart again bit for bit, and is an Opus packet.
func TestRepackIsExact(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 20_000 {
		toc := []byte{1 << 3, 9 << 3, 15 << 3, 31 << 3, 31<<3 | 4}[rnd.IntN(5)] // frames of 20 ms, the last in stereo
		n := 1 + rnd.IntN(timeline.MaxRepack)
		equal := rnd.IntN(4) == 0
		size := rnd.IntN(timeline.MaxPacket)
		var packets [][]byte
		for range n {
			if !equal {
				size = []int{rnd.IntN(300), rnd.IntN(timeline.MaxPacket)}[rnd.IntN(2)]
			}
			p := make([]byte, 1+size)
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			p[0] = toc
			packets = append(packets, p)
		}
		one, ok := timeline.Repack([]byte("before"), packets...)
		if !ok || !bytes.HasPrefix(one, []byte("before")) {
			t.Fatalf("%d packets of %#x were not put together", n, toc)
		}
		one = one[len("before"):]
		if err := timeline.CheckPacket(one); err != nil {
			t.Fatalf("%d packets: %v", n, err)
		}
		if d, _ := timeline.TOCDuration(one); d != n*960 {
			t.Fatalf("%d packets last %d samples", n, d)
		}
		back, ok := timeline.Unpack(nil, one)
		if !ok || len(back) != n {
			t.Fatalf("%d of %d came back", len(back), n)
		}
		for i := range back {
			if !bytes.Equal(back[i], packets[i]) {
				t.Fatalf("frame %d of %d was changed", i, n)
			}
		}
	}
}

func TestRepackRefuses(t *testing.T) {
	a, b := []byte{15 << 3, 1, 2}, []byte{31 << 3, 1, 2}
	for name, packets := range map[string][][]byte{
		"nothing": nil, "empty": {a, {}}, "two kinds": {a, b}, "mono and stereo": {a, {15<<3 | 4, 1}},
		"140 ms": {a, a, a, a, a, a, a}, "broken framing": {a, {15<<3 | 3}}, "an odd half": {{15<<3 | 1, 1}, a},
		"too long a frame": {a, make([]byte, timeline.MaxPacket+1)},
	} {
		if got, ok := timeline.Repack(nil, packets...); ok || len(got) != 0 {
			t.Errorf("%s: gave %x", name, got)
		}
	}
	if got, ok := timeline.Repack(nil, b); !ok || !bytes.Equal(got, b) {
		t.Errorf("one packet alone: %x", got)
	}
}

// Packets of several frames, as an encoder of 10 ms frames makes them, keep their frames too.
func TestRepackOfSeveral(t *testing.T) {
	toc := byte(14 << 3) // hybrid, 10 ms
	packets := [][]byte{{toc | 1, 1, 2, 3, 4}, {toc | 2, 1, 9, 8, 7}, {toc | 3, 0xc2, 2, 1, 5, 6, 6, 0, 0}}
	one, ok := timeline.Repack(nil, packets...)
	if !ok {
		t.Fatal("not put together")
	}
	frames, _ := timeline.Unpack(nil, one)
	want := [][]byte{{toc, 1, 2}, {toc, 3, 4}, {toc, 9}, {toc, 8, 7}, {toc, 5}, {toc, 6, 6}}
	if len(frames) != len(want) {
		t.Fatalf("%d frames: %x", len(frames), frames)
	}
	for i := range want {
		if !bytes.Equal(frames[i], want[i]) {
			t.Errorf("frame %d is %x, want %x", i, frames[i], want[i])
		}
	}
}

func FuzzRepack(f *testing.F) {
	f.Add([]byte{15 << 3, 1, 2}, []byte{15 << 3, 3})
	f.Add([]byte{14<<3 | 3, 0xc2, 2, 1, 5, 6, 6, 0, 0}, []byte{14<<3 | 2, 1, 9, 8, 7})
	f.Add([]byte{3, 0x41, 255, 0}, []byte{1})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		one, ok := timeline.Repack(nil, a, b)
		if !ok {
			return
		}
		if err := timeline.CheckPacket(one); err != nil {
			t.Fatalf("%x and %x became %x: %v", a, b, one, err)
		}
		fa, oka := timeline.Unpack(nil, a)
		fb, okb := timeline.Unpack(nil, b)
		got, okg := timeline.Unpack(nil, one)
		if want := append(fa, fb...); !oka || !okb || !okg || !equalAll(got, want) {
			t.Fatalf("%x and %x became %x", a, b, one)
		}
	})
}

func equalAll(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func TestRepackAllocatesNothing(t *testing.T) {
	packets, buf := voices(6), make([]byte, 0, 2048)
	if n := testing.AllocsPerRun(100, func() { _, _ = timeline.Repack(buf, packets...) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRepack(b *testing.B) {
	for _, n := range []int{3, 6} {
		b.Run(map[int]string{3: "60ms", 6: "120ms"}[n], func(b *testing.B) {
			packets, buf := voices(n), make([]byte, 0, 2048)
			for b.Loop() {
				_, _ = timeline.Repack(buf, packets...)
			}
		})
	}
}

// voices are packets as speech at 32 kbit/s has them.
func voices(n int) [][]byte {
	var packets [][]byte
	for i := range n {
		p := bytes.Repeat([]byte{byte(i)}, 70+5*i)
		p[0] = 15 << 3
		packets = append(packets, p)
	}
	return packets
}
