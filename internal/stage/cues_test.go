package stage_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/event"
	"earshot/internal/mix"
	"earshot/internal/observatory"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

var badMix = mix.Config{Complexity: 99}

func TestStageCuesComeWholeAtEachChangeAndEachSegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		pass(510 * time.Millisecond) // frame 25 is made
		_, _ = h.silent(ada, false)  // at 26
		pass(200 * time.Millisecond) // 35
		h.must(h.st.RaiseHand(t.Context(), cy, false))
		pass(200 * time.Millisecond) // 45: a hand is not for the audience
		h.must(h.st.Mute(t.Context(), ada.ID, stage.BySelf, true))
		pass(200 * time.Millisecond) // 55
		h.must(h.st.Mute(t.Context(), ada.ID, stage.ByHost, true))
		pass(200 * time.Millisecond) // 65: muted is muted
		h.must(h.st.Turn(t.Context(), event.Live, time.Now()))
		pass(200 * time.Millisecond) // 75
		_, _ = h.silent(bo, false)
		h.must(h.st.Remove(t.Context(), bo.ID)) // nothing has changed by the next frame
		pass(3 * time.Second)
		got := map[uint64]string{}
		var frames []uint64
		for _, c := range h.cues("stage") {
			got[c.Frame] = string(c.Data)
			frames = append(frames, c.Frame)
		}
		if want := []uint64{0, 26, 46, 66, 100, 200}; !slices.Equal(frames, want) {
			t.Errorf("stage cues at %v, want %v", frames, want)
		}
		const person = `{"id":"p_ada","name":"Ada","role":"host","muted":`
		for n, want := range map[uint64]string{
			0:   `{"phase":"doors","people":[]}`,
			26:  `{"phase":"doors","people":[` + person + `false}]}`,
			46:  `{"phase":"doors","people":[` + person + `true}]}`,
			66:  `{"phase":"live","live_frame":66,"people":[` + person + `true}]}`,
			100: `{"phase":"live","live_frame":66,"people":[` + person + `true}]}`,
		} {
			if got[n] != want {
				t.Errorf("frame %d: %s\nwant %s", n, got[n], want)
			}
		}
		h.end()
	})
}

func TestTheCountIsACueWhereItChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		pass(2500 * time.Millisecond)
		l := h.aud.Join(observatory.WHEP)
		l.Took(time.Now())
		changed := h.st.Changed()
		pass(5 * time.Second)
		<-changed
		if n := h.st.State().Listening; n != 1 {
			t.Errorf("listening %d", n)
		}
		h.aud.Leave(l)
		pass(2 * time.Second)
		if n := h.st.State().Listening; n != 0 {
			t.Errorf("listening %d", n)
		}
		pass(4 * time.Second)
		got := map[uint64]string{}
		for _, c := range h.cues("count") {
			got[c.Frame] = string(c.Data)
		}
		want := map[uint64]string{
			0:   `{"now":0,"peak":0,"tuned_in":0}`,
			200: `{"now":1,"peak":1,"tuned_in":1}`,
			400: `{"now":0,"peak":1,"tuned_in":1}`,
		}
		for n, w := range want {
			if got[n] != w {
				t.Errorf("count at %d: %s, want %s", n, got[n], w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("counts %v", got)
		}
		h.end()
	})
}

func TestNoticesComeOnceAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := open(t), t.Context()
		pass(10 * time.Millisecond)
		refused(t, h.st.Notice(ctx, "", "text", 0), event.CodeInvalid)
		refused(t, h.st.Notice(ctx, "code", strings.Repeat("x", 501), 0), event.CodeInvalid)
		refused(t, h.st.Notice(ctx, "code", "\xff", 0), event.CodeInvalid)
		h.must(h.st.Notice(ctx, "restart", `Back <soon> & "well"`, 30))
		for range 7 {
			h.must(h.st.Notice(ctx, "more", "", -3))
		}
		refused(t, h.st.Notice(ctx, "more", "", 0), event.CodeBusy)
		pass(time.Second)
		got := h.cues("notice")
		if len(got) != 8 || got[0].Frame != 1 || got[7].Frame != 1 {
			t.Fatalf("notices %+v", got)
		}
		first := read[map[string]any](t, got[0])
		if first["code"] != "restart" || first["text"] != `Back <soon> & "well"` || first["back_in_s"] != 30.0 {
			t.Errorf("notice %s", got[0].Data)
		}
		if string(got[7].Data) != `{"code":"more","text":""}` {
			t.Errorf("notice %s", got[7].Data)
		}
		h.must(h.st.Notice(ctx, "more", "", 0))
		h.end()
	})
}

// TestEverybodySeesTheHands: how many are up, and the first of them in their order, with names only where that was wished; at most once a
// segment, however often hands go up and down.
func TestEverybodySeesTheHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := open(t, live), t.Context()
		pass(2*time.Second + 10*time.Millisecond)
		if cues := h.cues("hands"); len(cues) != 0 {
			t.Fatalf("nobody raised a hand: %+v", cues)
		}
		h.must(h.st.RaiseHand(ctx, cy, false))
		h.must(h.st.RaiseHand(ctx, event.Person{ID: "p_el", Name: "El", Role: event.Listener}, true))
		h.must(h.st.Admit(ctx, "p_el"))
		for range 20 {
			h.must(h.st.RaiseHand(ctx, event.Person{ID: "p_fun", Name: "Fun", Role: event.Listener}, true))
			pass(100 * time.Millisecond)
			h.must(h.st.LowerHand(ctx, "p_fun"))
		}
		for n := range 20 {
			h.must(h.st.RaiseHand(ctx, event.Person{ID: fmt.Sprint("p_", n), Name: "N", Role: event.Listener}, false))
		}
		pass(4 * time.Second)
		cues := h.cues("hands")
		if len(cues) != 2 || cues[0].Frame != 200 || cues[1].Frame != 300 {
			t.Fatalf("cues %+v", cues)
		}
		want := `{"up":3,"first":[{"id":"p_cy"},{"id":"p_el","name":"El","admitted":true},{"id":"p_fun","name":"Fun"}]}`
		if got := string(cues[0].Data); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		all := read[struct {
			Up    int
			First []struct{ ID, Name string }
		}](t, cues[1])
		if all.Up != 22 || len(all.First) != 20 || all.First[0].ID != cy.ID || all.First[2].ID != "p_0" || strings.Contains(string(cues[1].Data), `"N"`) {
			t.Errorf("cue %s", cues[1].Data)
		}
		// A newcomer is told, and it is told when the last hand is down.
		if sticky := h.tl.Sticky(); !slices.ContainsFunc(sticky, func(c timeline.Cue) bool { return c.Kind == "hands" }) {
			t.Errorf("sticky %+v", sticky)
		}
		for _, hand := range h.st.State().Hands {
			h.must(h.st.LowerHand(ctx, hand.ID))
		}
		pass(3 * time.Second)
		if got := string(last(h.cues("hands")).Data); got != `{"up":0,"first":[]}` {
			t.Errorf("cue %s", got)
		}
		h.end()
	})
}

func TestTheStateReadsAsTheProtocolSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		check := func(want string) {
			t.Helper()
			got, err := json.Marshal(h.st.State())
			h.must(err)
			if string(got) != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
		check(`{"phase":"doors","people":[],"hands":[],"listening":0,"programme":-90}`)
		_, _ = h.silent(ada, false)
		h.must(h.st.RaiseHand(t.Context(), cy, false))
		pass(210 * time.Millisecond)
		h.must(h.st.Turn(t.Context(), event.Live, time.Now()))
		check(`{"phase":"live","live_at":"2000-01-01T00:00:00.21Z","people":[{"id":"p_ada","name":"Ada","role":"host","muted":"",` +
			`"connected":true,"level":-90,"speaking":false,"loss":0,"jitter_ms":0}],` +
			`"hands":[{"id":"p_cy","name":"Cy","named":false,"since":"2000-01-01T00:00:00Z","admitted":false}],"listening":0,"programme":-90}`)
		h.end()
	})
}

func TestLevelsMoveFiveTimesASecondAndStateStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, live)
		a := h.speak(ada, 500)
		_, _ = h.silent(bo, false)
		pass(4010 * time.Millisecond)
		changed, moves := h.st.Changed(), 0
		timeout := time.After(1900 * time.Millisecond)
		for open := true; open; {
			select {
			case <-h.st.LevelsChanged():
				moves++
			case <-timeout:
				open = false
			}
		}
		if moves != 9 {
			t.Errorf("levels moved %d times in 1.9 s", moves)
		}
		select {
		case <-changed:
			t.Errorf("the state changed: %+v", h.st.State())
		default:
		}
		if p, _ := h.person(ada.ID); !p.Speaking || p.Loss != 0 {
			t.Errorf("person %+v", p)
		}
		// Who can't be heard is not in the cue, and there is none when nobody can.
		for _, c := range h.cues("levels") {
			if got := read[map[string]float64](t, c); len(got) != 1 || got[ada.ID] == 0 {
				t.Fatalf("levels at %d: %s", c.Frame, c.Data)
			}
		}
		spoke := h.st.State()
		a.hush()
		pass(time.Second)
		if !spoke.People[0].Speaking || spoke.People[0].Level == -90 {
			t.Error("a copy of the state changed")
		}
		quiet := last(h.cues("levels")).Frame
		pass(time.Second)
		if c := last(h.cues("levels")); c.Frame != quiet {
			t.Errorf("nobody speaks, and at frame %d the levels are %s", c.Frame, c.Data)
		}
		if p, _ := h.person(ada.ID); p.Speaking || p.Level != -90 {
			t.Errorf("person %+v", p)
		}
		h.end()
	})
}

// quiet is an outlet that allocates nothing.
type quiet struct{ n int }

func (q *quiet) Hear(uint64, []byte) { q.n++ }
func (q *quiet) Close(stage.Reason)  {}

func TestATickWithoutACueAllocatesNothing(t *testing.T) {
	// The runtime's own caches of waiting goroutines are per processor and emptied by a collection; filling them again would
	// count here. One processor, as in testing.AllocsPerRun, and no collection.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	synctest.Test(t, func(t *testing.T) {
		h := open(t, live)
		packets := voice(t, 40)
		seats := make([]*stage.Seat, 5)
		for i := range seats {
			var err error
			seats[i], err = h.st.Join(t.Context(), event.Person{ID: string(rune('a' + i)), Role: event.Speaker}, new(quiet), true)
			h.must(err)
		}
		_, err := h.st.Monitor(t.Context(), "a", new(quiet))
		h.must(err)
		seq := 0
		tick := func() {
			for _, s := range seats {
				s.Push(mix.Packet{Seq: uint16(seq), TS: uint32(seq * 960), Payload: packets[seq%len(packets)]})
			}
			seq++
			time.Sleep(event.FrameDuration)
			synctest.Wait()
		}
		time.Sleep(10 * time.Millisecond)
		for range 129 {
			tick() // warm; frame 129 ends a part
		}
		var total uint64
		var before, after runtime.MemStats
		for range 20 {
			tick() // the part before it is closed, and the playlist's state with it
			runtime.ReadMemStats(&before)
			for range 8 {
				tick()
			}
			runtime.ReadMemStats(&after)
			total += after.Mallocs - before.Mallocs
			tick()
		}
		if h.tl.Head()%10 != 0 {
			t.Fatalf("head %d: the ticks measured are not those within a part", h.tl.Head())
		}
		// The timeline's batch may outgrow what the part before needed: one allocation.
		if total > 8 {
			t.Errorf("%d allocations in 160 ticks of five voices", total)
		}
		h.end()
	})
}

// voice is some syllables of packets.
func voice(t *testing.T, n int) [][]byte {
	t.Helper()
	enc, err := mix.NewEncoder(32000)
	if err != nil {
		t.Fatal(err)
	}
	var packets [][]byte
	for i := range n {
		var pcm [event.FrameSamples]float32
		for j := range pcm {
			pcm[j] = float32((i*len(pcm)+j)%160)/1600 - 0.05
		}
		out := make([]byte, 1500)
		k, err := enc.Encode(pcm[:], out)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, out[:k])
	}
	return packets
}
