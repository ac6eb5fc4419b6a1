package crowd

import "testing"

// feeder sends media to a player by a simulated clock, as a server does: at each tick all that was made since the last.
type feeder struct {
	t      *testing.T
	p      player
	h      *habits
	now    int64
	made   uint64 // frames sent
	gaps   int
	gapped int64
}

// deliver sends what was made up to now: frames of 20 ms, with those in the ring at first.
func (f *feeder) deliver(frames int, lost int64) {
	f.p.advance(f.h, f.now)
	if d := f.p.settle(lost); d > 0 {
		f.gaps++
		f.gapped += d
	}
	f.made += uint64(frames)
	f.p.arrive(f.h, f.now, int64(frames)*frame, f.made-uint64(frames), f.made)
}

// every sends for a time, a message each cadence.
func (f *feeder) every(cadence, length int64) {
	for end := f.now + length; f.now < end; {
		f.now += cadence
		f.deliver(int(cadence/frame), 0)
	}
}

func newFeeder(t *testing.T, h *habits, cadence int32, burst int) *feeder {
	f := &feeder{t: t, h: h, now: 1e9}
	f.p.cadence = cadence
	f.deliver(burst, 0)
	return f
}

func (f *feeder) want(gaps int, what string) {
	f.t.Helper()
	if f.gaps != gaps {
		f.t.Errorf("%s: %d gaps of %d ms together, want %d", what, f.gaps, f.gapped/ms, gaps)
	}
	f.gaps, f.gapped = 0, 0
}

func TestPushAtItsCadence(t *testing.T) {
	f := newFeeder(t, &pushHabits, 200, 20)
	if !f.p.playing {
		t.Fatal("two parts do not start the player")
	}
	f.every(200*ms, 60e9)
	f.want(0, "a minute at 200 ms")
	// What is left when a message arrives is the low water.
	f.now += 200 * ms
	f.p.advance(f.h, f.now)
	if low := f.p.inHand(); low < 90*ms || low > 150*ms {
		t.Errorf("%d ms are left when a message arrives", low/ms)
	}
}

// A stretch of the cadence that is announced ten seconds ahead is heard by nobody; one that is not is.
func TestPushStretches(t *testing.T) {
	for _, to := range []int32{400, 1000} {
		f := newFeeder(t, &pushHabits, 200, 20)
		f.every(200*ms, 20e9)
		f.p.announce(to, f.made+500)
		f.every(200*ms, 10e9)
		f.want(0, "while the buffer grows")
		f.every(int64(to)*ms, 30e9)
		f.want(0, "after an announced stretch")
		if f.p.cadence != to || f.p.nchanges != 0 {
			t.Errorf("the cadence is %d, and %d changes lie ahead", f.p.cadence, f.p.nchanges)
		}
		f.p.announce(200, f.made+100)
		f.every(int64(to)*ms, 2e9)
		f.every(200*ms, 20e9)
		f.want(0, "and back")

		f = newFeeder(t, &pushHabits, 200, 20)
		f.every(200*ms, 20e9)
		f.every(int64(to)*ms, 10e9)
		if f.gaps == 0 {
			t.Errorf("an unannounced stretch to %d ms made no gap", to)
		}
	}
	// From 1 s to 2 s, as the ladder goes on.
	f := newFeeder(t, &pushHabits, 1000, 70)
	f.every(1000*ms, 20e9)
	f.want(0, "a newcomer at 1 s")
	f.p.announce(2000, f.made+500)
	f.every(1000*ms, 10e9)
	f.every(2000*ms, 40e9)
	f.want(0, "from 1 s to 2 s")
}

// Several messages that come back to back are one arrival: the low water is what was left before the first.
func TestBackToBack(t *testing.T) {
	f := newFeeder(t, &pushHabits, 2000, 130)
	for range 20 {
		f.now += 2000 * ms
		for range 10 {
			f.deliver(10, 0)
			f.now += ms / 10
		}
		f.now -= ms
	}
	f.want(0, "pairs back to back")
}

func TestPushStalls(t *testing.T) {
	f := newFeeder(t, &pushHabits, 200, 20)
	f.every(200*ms, 10e9)
	f.now += 1000 * ms
	f.deliver(60, 0)
	f.want(1, "a second of silence on the wire")
	f.every(200*ms, 10e9)
	f.want(0, "after it")
	// Too far behind is skipped, not listened through.
	f.deliver(250, 0)
	f.every(200*ms, 10e9)
	if f.p.inHand() > 3500*ms {
		t.Errorf("%d ms in hand", f.p.inHand()/ms)
	}
}

// One who gets nothing more has a gap, though nothing comes that would show it.
func TestSilenceIsAGap(t *testing.T) {
	f := newFeeder(t, &pushHabits, 200, 20)
	f.every(200*ms, 2e9)
	f.now += 5e9
	f.p.advance(f.h, f.now)
	if d := f.p.settle(0); d < 4e9 || d > 5e9 {
		t.Errorf("dry for %d ms", d/ms)
	}
}

func TestPackets(t *testing.T) {
	f := newFeeder(t, &rtpHabits, 20, 1)
	f.every(20*ms, 10e9)
	f.want(0, "packets of 20 ms")
	for i := range 500 { // jitter under the buffer's target
		f.now += 20 * ms
		late := int64(i%3) * 12 * ms
		f.now += late
		f.deliver(1, 0)
		f.now -= late
	}
	f.want(0, "24 ms of jitter")
	f.every(120*ms, 2e9)
	if f.gaps == 0 {
		t.Error("an unannounced change to 120 ms made no gap")
	}

	f = newFeeder(t, &rtpHabits, 20, 1)
	f.every(20*ms, 10e9)
	f.p.announce(120, f.made+500)
	f.every(20*ms, 10e9)
	f.every(120*ms, 20e9)
	f.want(0, "an announced change to 120 ms")
	f.p.announce(20, f.made+100)
	f.every(120*ms, 2e9)
	f.every(20*ms, 10e9)
	f.want(0, "and back")
}

// A lost packet is concealed while it is waited for; that is no gap, and nothing is later for it.
func TestLossIsNoGap(t *testing.T) {
	for _, length := range []int64{20, 120} {
		f := newFeeder(t, &rtpHabits, int32(length), int(length/20))
		f.every(length*ms, 5e9)
		for range 20 {
			f.now += 2 * length * ms // one did not come
			f.deliver(int(length/10), length*ms)
			f.every(length*ms, 2e9)
		}
		f.want(0, "single losses")
		f.now += 10 * length * ms
		f.deliver(int(length/20), 0) // nothing was lost: the server stood still
		f.want(1, "a stall")
	}
}

func TestFilesAndSegments(t *testing.T) {
	f := newFeeder(t, &fileHabits, 0, 150)
	f.every(200*ms, 60e9)
	f.want(0, "a long response")
	f = newFeeder(t, &hlsHabits, 0, 60)
	f.every(400*ms, 60e9)
	f.want(0, "parts of HLS, a hold-back behind")
	f.now += 2e9
	f.deliver(20, 0)
	f.want(1, "a part that comes 2 s late")
}

func TestPlayerAllocatesNothing(t *testing.T) {
	f := newFeeder(t, &pushHabits, 200, 20)
	if n := testing.AllocsPerRun(100, func() { f.every(200*ms, 200*ms) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
