package event_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"earshot/internal/event"
)

func TestTurn(t *testing.T) {
	phases := []event.Phase{event.Scheduled, event.Doors, event.Live, event.Ended, event.Cancelled}
	allowed := map[event.Phase][]event.Phase{
		event.Scheduled: {event.Doors, event.Live, event.Cancelled},
		event.Doors:     {event.Live, event.Ended, event.Cancelled},
		event.Live:      {event.Ended},
	}
	for _, from := range phases {
		for _, to := range phases {
			want := false
			for _, p := range allowed[from] {
				want = want || p == to
			}
			err := from.Turn(to)
			if (err == nil) != want {
				t.Errorf("%s to %s: %v, want allowed %v", from, to, err, want)
			}
			if err != nil && event.CodeOf(err) != event.CodeConflict {
				t.Errorf("%s to %s: code %s", from, to, event.CodeOf(err))
			}
		}
	}
}

func TestClean(t *testing.T) {
	base := event.Event{Slug: "town-hall", Title: "Town hall", Start: time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC), Phase: event.Scheduled}
	for _, c := range []struct {
		name   string
		change func(*event.Event)
		field  string // of the error; empty: accepted
	}{
		{"plain", func(*event.Event) {}, ""},
		{"right to left", func(e *event.Event) { e.Title = "اجتماع البلدة" }, ""},
		{"emoji with joiners", func(e *event.Event) { e.Title = "👩‍👩‍👧‍👦 family" }, ""},
		{"no title", func(e *event.Event) { e.Title = " \t " }, "title"},
		{"invisible title", func(e *event.Event) { e.Title = "\u200b\u200d" }, "title"},
		{"300 characters", func(e *event.Event) { e.Title = strings.Repeat("x", 300) }, "title"},
		{"override", func(e *event.Event) { e.Title = "abc\u202egnp.exe" }, "title"},
		{"control", func(e *event.Event) { e.Title = "a\x00b" }, "title"},
		{"not UTF-8", func(e *event.Event) { e.Title = "a\xffb" }, "title"},
		{"dots", func(e *event.Event) { e.Slug = "../etc" }, "slug"},
		{"capitals", func(e *event.Event) { e.Slug = "Town" }, "slug"},
		{"hyphen last", func(e *event.Event) { e.Slug = "town-" }, "slug"},
		{"65 characters", func(e *event.Event) { e.Slug = strings.Repeat("a", 65) }, "slug"},
		{"no start", func(e *event.Event) { e.Start = time.Time{} }, "start"},
		{"far future", func(e *event.Event) { e.Start = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, "start"},
		{"unknown zone", func(e *event.Event) { e.Zone = "Mars/Olympus" }, "zone"},
		{"path as zone", func(e *event.Event) { e.Zone = "../../etc/passwd" }, "zone"},
		{"the machine's zone", func(e *event.Event) { e.Zone = "Local" }, "zone"},
		{"impatient", func(e *event.Event) { e.IdleEnd = time.Second }, "idle_end_s"},
		{"no phase", func(e *event.Event) { e.Phase = "paused" }, "phase"},
	} {
		e := base
		c.change(&e)
		err := e.Clean()
		var ee *event.Error
		if errors.As(err, &ee) {
			if ee.Field != c.field || ee.Code != event.CodeInvalid || ee.Message == "" {
				t.Errorf("%s: %+v, want field %q", c.name, ee, c.field)
			}
		} else if err != nil || c.field != "" {
			t.Errorf("%s: %v, want field %q", c.name, err, c.field)
		}
	}
}

func TestSlugFrom(t *testing.T) {
	for title, want := range map[string]string{
		"Town Hall: Budget 2027!":   "town-hall-budget-2027",
		"Über Äpfel & Öl":           "uber-apfel-ol",
		"  --  ":                    "",
		"اجتماع":                    "",
		strings.Repeat("long ", 40): "long-long-long-long-long-long-long-long-long-long-long-long",
	} {
		got := event.SlugFrom(title)
		if got != want {
			t.Errorf("%q: %q, want %q", title, got, want)
		}
	}
}

// Whatever the title, the slug made of it is an address or nothing.
func FuzzSlugFrom(f *testing.F) {
	f.Add("Town Hall")
	f.Add("ﬁ ²-- \u202e")
	f.Add(strings.Repeat("a-", 80))
	f.Fuzz(func(t *testing.T, title string) {
		if s := event.SlugFrom(title); s != "" {
			if err := event.CheckSlug(s); err != nil {
				t.Errorf("%q gives %q: %v", title, s, err)
			}
		}
	})
}

func FuzzCleanLine(f *testing.F) {
	f.Add("Ada")
	f.Add("a\u0301\u202e")
	f.Fuzz(func(t *testing.T, in string) {
		once, err := event.CleanLine("name", in, event.MaxName)
		if err != nil {
			return
		}
		twice, err := event.CleanLine("name", once, event.MaxName)
		if err != nil || twice != once {
			t.Errorf("%q cleans to %q, and that to %q, %v", in, once, twice, err)
		}
		if strings.ContainsAny(once, "\r\n\x00") {
			t.Errorf("%q kept a control character", once)
		}
	})
}

func TestFrameAt(t *testing.T) {
	origin := time.Date(2026, 11, 28, 17, 45, 0, 0, time.UTC)
	e := event.Event{Origin: origin}
	for d, want := range map[time.Duration]uint64{-time.Second: 0, 0: 0, 19 * time.Millisecond: 0, 20 * time.Millisecond: 1, 2 * time.Hour: 360000} {
		if got := e.FrameAt(origin.Add(d)); got != want {
			t.Errorf("%v after the origin: frame %d, want %d", d, got, want)
		}
	}
	if got := (event.Event{}).FrameAt(origin); got != 0 {
		t.Errorf("without an origin: frame %d", got)
	}
}
