package cluster

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"earshot/internal/timeline"
)

func someMessage(r *rand.Rand) message {
	m := message{epoch: r.Uint64N(1 << 40), number: r.Uint64N(maxNumber + 1), packet: make([]byte, 1+r.IntN(timeline.MaxPacket))}
	m.back = r.Uint64N(m.number + 1)
	for i := range m.packet {
		m.packet[i] = byte(r.Uint32())
	}
	for range r.IntN(4) {
		c := timeline.Cue{Frame: m.number, Kind: strings.Repeat("k", 1+r.IntN(maxKind))}
		if r.IntN(2) == 0 {
			about := r.Uint64N(m.number + 1)
			c.About = &about
		}
		if r.IntN(2) == 0 {
			c.Data = []byte(`{"a":` + strings.Repeat("1", 1+r.IntN(300)) + `}`)
		}
		m.cues = append(m.cues, c)
	}
	return m
}

// What is written is what is read, whatever it is.
func TestWire(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		m := someMessage(r)
		if r.IntN(20) == 0 {
			m = message{end: true, epoch: m.epoch, number: m.number, back: m.back}
		}
		b := m.appendTo(nil)
		got, err := parse(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("seed %d: %+v became %+v, %v", seed, m, got, err)
		}
		for _, bad := range [][]byte{b[:r.IntN(len(b))], append(bytes.Clone(b), 0)} {
			if _, err := parse(bad); err == nil {
				t.Fatalf("seed %d: %d of %d bytes were taken", seed, len(bad), len(b))
			}
		}
	}
}

// Whatever comes is refused, or is a message that, written again, is read alike.
func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		m := someMessage(r)
		f.Add(m.appendTo(nil))
	}
	f.Add((&message{end: true, epoch: 3, number: 700, back: 1}).appendTo(nil))
	f.Add([]byte{wireVersion, kindFrame, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{wireVersion, kindFrame, 1, 1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil {
			return
		}
		if len(m.cues) > maxCues || len(m.packet) > timeline.MaxPacket || m.number > maxNumber || m.back > m.number {
			t.Fatalf("out of bounds: %+v", m)
		}
		for _, c := range m.cues {
			if c.About != nil && *c.About > m.number || len(c.Data) > timeline.MaxCueData {
				t.Fatalf("out of bounds: %+v", c)
			}
		}
		again, err := parse(m.appendTo(nil))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"node":"n_1.ab","epoch":7,"listening":{"push":3},"tuned_in":9}`))
	f.Add([]byte(`{"node":"n","listening":{"whep":-1}}`))
	f.Add([]byte(`{"node":"n","tuned_in":99999999999999}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReport(b)
		if err != nil {
			return
		}
		for _, n := range r.Listening {
			if n < 0 || n > maxFigure {
				t.Fatal(n)
			}
		}
		if r.Node == "" || r.TunedIn < 0 || r.TunedIn > maxFigure {
			t.Fatalf("%+v", r)
		}
	})
}

// The stage's goroutine hands its frames over without an allocation, whether they are sent or not.
func TestFrameAllocatesNothing(t *testing.T) {
	p, dropped := Unconnected(3)
	packet := make([]byte, 80)
	cues := []timeline.Cue{{Kind: "levels", Data: []byte(`{"p_1":-20.5}`)}}
	n := uint64(0)
	frame := func() {
		p.Frame(timeline.Frame{Number: n, Epoch: 3, Packet: packet}, cues)
		n++
	}
	for range 2 * unsent {
		frame()
	}
	if allocs := testing.AllocsPerRun(1000, frame); allocs != 0 {
		t.Errorf("%v allocations for each frame", allocs)
	}
	if got, want := dropped(), n-uint64(unsent); got != want {
		t.Errorf("%d of %d frames were dropped, want the oldest %d", got, n, want)
	}
	b, _, _ := p.copyNext(nil)
	if m, err := parse(b); err != nil || m.number != n-uint64(unsent) || m.back != 1 {
		t.Errorf("the oldest that is left is %+v, %v", m, err)
	}
}

func BenchmarkParse(b *testing.B) {
	m := message{epoch: 12, number: 61230, back: 1, packet: make([]byte, 80)}
	msg := m.appendTo(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(msg); err != nil {
			b.Fatal(err)
		}
	}
}
