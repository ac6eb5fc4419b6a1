package timeline_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/timeline"
)

func TestPlaylist(t *testing.T) {
	const head = `#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.2
#EXT-X-PART-INF:PART-TARGET=0.4
#EXT-X-INDEPENDENT-SEGMENTS
`
	tl := newTimeline(t, timeline.Config{Epoch: 1})
	check := func(when, want string) {
		t.Helper()
		if got := string(tl.Playlist()); got != head+want {
			t.Errorf("%s: got\n%s\nwant\n%s", when, got, head+want)
		}
	}
	check("empty", `#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-MAP:URI="init.mp4"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part/0.0.m4s"
`)
	fill(t, tl, 0, 59) // two parts of HLS; the third lacks a frame
	check("open segment", `#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-MAP:URI="init.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:00.000Z
#EXT-X-PART:DURATION=0.40,URI="part/0.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/0.1.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part/0.2.m4s"
`)
	before := tl.Playlist()
	if &before[0] != &tl.Playlist()[0] {
		t.Error("the playlist is written again although nothing happened")
	}
	fill(t, tl, 59, 63)
	fill(t, tl, 400, 421) // a gap: 1.26 s stand before it
	check("after a gap", `#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-MAP:URI="init.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:00.000Z
#EXT-X-PART:DURATION=0.40,URI="part/0.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/0.1.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/0.2.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.06,URI="part/0.3.m4s",INDEPENDENT=YES
#EXTINF:1.26,
seg/0.m4s
#EXT-X-DISCONTINUITY
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:08.000Z
#EXT-X-PART:DURATION=0.40,URI="part/4.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part/4.1.m4s"
`)
	fill(t, tl, 421, 1430)
	tl.End()
	check("ended, and the first has slid out", `#EXT-X-MEDIA-SEQUENCE:2
#EXT-X-DISCONTINUITY-SEQUENCE:1
#EXT-X-MAP:URI="init.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:10.000Z
#EXTINF:2.00,
seg/5.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:12.000Z
#EXTINF:2.00,
seg/6.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:14.000Z
#EXTINF:2.00,
seg/7.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:16.000Z
#EXTINF:2.00,
seg/8.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:18.000Z
#EXTINF:2.00,
seg/9.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:20.000Z
#EXTINF:2.00,
seg/10.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:22.000Z
#EXTINF:2.00,
seg/11.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:24.000Z
#EXT-X-PART:DURATION=0.40,URI="part/12.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/12.1.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/12.2.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/12.3.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/12.4.m4s",INDEPENDENT=YES
#EXTINF:2.00,
seg/12.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:26.000Z
#EXT-X-PART:DURATION=0.40,URI="part/13.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/13.1.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/13.2.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/13.3.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.40,URI="part/13.4.m4s",INDEPENDENT=YES
#EXTINF:2.00,
seg/13.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:28.000Z
#EXT-X-PART:DURATION=0.40,URI="part/14.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.20,URI="part/14.1.m4s",INDEPENDENT=YES
#EXTINF:0.60,
seg/14.m4s
#EXT-X-ENDLIST
`)
}

// TestPlaylistAfterRestart: a second process goes on where the first left off; sequence numbers rise although it knows no history.
func TestPlaylistAfterRestart(t *testing.T) {
	tl := newTimeline(t, timeline.Config{First: 700, Epoch: 9})
	for n := uint64(700); n < 720; n++ {
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 9, Packet: packet(n)}); err != nil {
			t.Fatal(err)
		}
	}
	tl.Close()
	want := `#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-DISCONTINUITY-SEQUENCE:6
#EXT-X-MAP:URI="init.mp4"
#EXT-X-DISCONTINUITY
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:14.000Z
#EXT-X-PART:DURATION=0.40,URI="part/7.0.m4s",INDEPENDENT=YES
#EXTINF:0.40,
seg/7.m4s
`
	// Closed, not ended: neither a hint nor an end.
	if got := string(tl.Playlist()); !strings.HasSuffix(got, want) {
		t.Errorf("got\n%s\nwant at its end\n%s", got, want)
	}
	tl.End() // the event ends while the process stops
	if !strings.HasSuffix(string(tl.Playlist()), want+"#EXT-X-ENDLIST\n") || !tl.Ended() {
		t.Error("End after Close left the playlist open")
	}
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline(t, timeline.Config{Epoch: 1})
		fill(t, tl, 0, 330)
		await := func(seg uint64, part int) <-chan error {
			done := make(chan error, 1)
			go func() { done <- tl.Await(t.Context(), seg, part) }()
			synctest.Wait()
			return done
		}
		now := func(seg uint64, part int, want error) {
			t.Helper()
			select {
			case err := <-await(seg, part):
				if !errors.Is(err, want) {
					t.Errorf("segment %d part %d: %v, want %v", seg, part, err, want)
				}
			default:
				t.Errorf("segment %d part %d: waits", seg, part)
			}
		}
		later := func(done <-chan error, what string, from, to uint64) {
			t.Helper()
			fill(t, tl, from, to-1)
			synctest.Wait()
			select {
			case err := <-done:
				t.Errorf("%s: %v, too early", what, err)
			default:
			}
			fill(t, tl, to-1, to)
			synctest.Wait()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
			default:
				t.Errorf("%s: still waits", what)
			}
		}
		now(0, -1, nil)
		now(2, 4, nil)
		now(2, 7, nil) // beyond the segment's last part: the next segment's first
		now(3, 0, nil)
		now(6, 0, timeline.ErrFar)
		now(5, 5, timeline.ErrFar)
		later(await(3, 1), "next part", 330, 340)
		later(await(3, 5), "part after the last", 340, 420)
		later(await(4, -1), "whole segment", 420, 500)
		later(await(6, -1), "two segments on", 500, 700)

		// Over a gap the media sequence number goes on by one, the segment's own by more.
		gone := await(7, 0)
		fill(t, tl, 700, 701)
		fill(t, tl, 1000, 1020)
		synctest.Wait()
		if err := <-gone; err != nil {
			t.Error(err)
		}
		now(7, -1, nil) // segment 7, cut short
		now(8, 0, nil)  // segment 10
		if _, err := tl.HLSPart(10, 0); err != nil {
			t.Error(err)
		}
		if _, err := tl.HLSPart(8, 0); !errors.Is(err, timeline.ErrGap) {
			t.Errorf("a part that was never made: %v", err)
		}
		if _, err := tl.HLSPart(10, 1); !errors.Is(err, timeline.ErrAhead) {
			t.Errorf("the hinted part: %v", err)
		}
		for _, k := range []int{-1, 5} {
			if _, err := tl.HLSPart(10, k); !errors.Is(err, timeline.ErrGap) {
				t.Errorf("part %d of a segment: %v", k, err)
			}
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tl.Await(ctx, 9, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("patience ends: %v", err)
		}
		waits := await(9, 0)
		tl.Close()
		if err := <-waits; !errors.Is(err, timeline.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		now(8, -1, nil)
		tl.End()
		now(9, 0, nil) // the finished playlist is the answer
	})
}

func TestVOD(t *testing.T) {
	got := string(timeline.VOD(origin, []timeline.Recorded{{Number: 0, Frames: 100}, {Number: 1, Frames: 63}, {Number: 2, Frames: 100}, {Number: 3, Frames: 100}, {Number: 1800, Frames: 7}}))
	want := `#EXTM3U
#EXT-X-VERSION:7
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-TARGETDURATION:2
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MEDIA-SEQUENCE:1796
#EXT-X-MAP:URI="init.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:00.000Z
#EXTINF:2.00,
seg/0.m4s
#EXTINF:1.26,
seg/1.m4s
#EXT-X-DISCONTINUITY
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T17:45:04.000Z
#EXTINF:2.00,
seg/2.m4s
#EXTINF:2.00,
seg/3.m4s
#EXT-X-DISCONTINUITY
#EXT-X-PROGRAM-DATE-TIME:2026-11-28T18:45:00.000Z
#EXTINF:0.14,
seg/1800.m4s
#EXT-X-ENDLIST
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := string(timeline.VOD(origin, nil)); !strings.HasSuffix(got, "#EXT-X-ENDLIST\n") {
		t.Errorf("nothing recorded:\n%s", got)
	}
}

func TestMultivariant(t *testing.T) {
	want := "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n" +
		"#EXT-X-STREAM-INF:BANDWIDTH=72000,AVERAGE-BANDWIDTH=42000,CODECS=\"opus\"\nmain.m3u8\n"
	if got := string(timeline.Multivariant()); got != want {
		t.Errorf("got\n%s", got)
	}
}

// BenchmarkPlaylist is paid once a part, however many ask.
func BenchmarkPlaylist(b *testing.B) {
	tl := newTimeline(b, timeline.Config{Epoch: 1})
	fill(b, tl, 0, 3000)
	b.ReportAllocs()
	for n := uint64(3000); b.Loop(); n += 10 {
		b.StopTimer()
		fill(b, tl, n, n+10)
		b.StartTimer()
		if len(tl.Playlist()) == 0 {
			b.Fatal("no playlist")
		}
	}
}
