package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/web"
)

// FuzzReload: what is understood of a playlist's query can be said back in one way only, and means what the query says.
func FuzzReload(f *testing.F) {
	for _, q := range []string{
		"", "_HLS_msn=5&_HLS_part=3", "_HLS_msn=0&_HLS_skip=YES", "_HLS_part=1", "_HLS_msn=-1", "_HLS_msn=1&_HLS_part=5", "a=%zz",
		"_HLS_msn=1099511627775&_HLS_part=4", "_HLS_msn=01", "_HLS_msn=1;_HLS_part=2", "_HLS_msn=+1", "_HLS_msn=%31",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		block, msn, part, err := web.Reload(raw)
		if err != nil {
			if event.CodeOf(err) != event.CodeInvalid {
				t.Fatalf("%v", err)
			}
			return
		}
		if part < -1 || part > 4 || msn > 1<<40 {
			t.Fatalf("msn %d, part %d", msn, part)
		}
		if q, _ := url.ParseQuery(raw); block != q.Has("_HLS_msn") {
			t.Fatalf("block %t", block)
		}
		if !block {
			return
		}
		again := fmt.Sprintf("_HLS_msn=%d", msn)
		if part >= 0 {
			again += fmt.Sprintf("&_HLS_part=%d", part)
		}
		if msn == 1<<40 {
			return // rolled over from the last number that is taken
		}
		if b, m, p, err := web.Reload(again); err != nil || !b || m != msn || p != part {
			t.Fatalf("%s: %t %d %d %v", again, b, m, p, err)
		}
	})
}

// FuzzFile: every segment and part has one name, or a cache would hold it twice.
func FuzzFile(f *testing.F) {
	for _, name := range []string{"0.m4s", "12.m4s", "12.3.m4s", "01.m4s", "1.5.m4s", "-1.m4s", ".m4s", "1..m4s", "+1.m4s", "99999999999999999999.m4s"} {
		f.Add(name, false)
		f.Add(name, true)
	}
	f.Fuzz(func(t *testing.T, name string, hasPart bool) {
		seg, part, err := web.File(name, hasPart)
		if err != nil {
			return
		}
		want := fmt.Sprintf("%d.m4s", seg)
		if hasPart {
			want = fmt.Sprintf("%d.%d.m4s", seg, part)
		}
		if name != want || part < 0 || part > 4 {
			t.Fatalf("%q is taken for %q", name, want)
		}
	})
}

func FuzzCodings(f *testing.F) {
	for _, h := range []string{"", "gzip", "br;q=0, gzip;q=0.5", "*", "*;q=0", "gzip;q=x", "GZIP ; Q = 1", ",;,;=", "identity;q=0"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, header string) {
		for name, wanted := range web.Codings(header) {
			lower := strings.ToLower(header)
			if wanted && !strings.Contains(lower, name) && !strings.Contains(header, "*") {
				t.Fatalf("%q was never asked for in %q", name, header)
			}
		}
	})
}

func FuzzRevision(f *testing.F) {
	for _, h := range []string{"", "*", `"7"`, `W/"7"`, `"07"`, `"0"`, `"18446744073709551616"`, `7`, `"7", "8"`} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, header string) {
		n, err := web.Revision(header)
		if err != nil || n == 0 {
			return
		}
		if strings.TrimSpace(header) != fmt.Sprintf("%q", fmt.Sprint(n)) {
			t.Fatalf("%q is taken for %d", header, n)
		}
	})
}

func FuzzStart(f *testing.F) {
	for _, s := range []string{"2026-11-28T18:00:00Z", "2026-11-28T19:00", "2027-03-28T02:30", "2027-10-31T02:30", "", "-1", "2026-11-28T24:00"} {
		f.Add(s, "Europe/Berlin")
		f.Add(s, "")
		f.Add(s, "../../etc/passwd")
	}
	f.Fuzz(func(t *testing.T, text, zone string) {
		at, err := web.Start(text, zone)
		if err != nil {
			return
		}
		if at.Location() != time.UTC || at.Nanosecond() != 0 {
			t.Fatalf("%v", at)
		}
		if loc, err := time.LoadLocation(zone); err == nil && len(text) == len("2006-01-02T15:04") {
			if got := at.In(loc).Format("2006-01-02T15:04"); got != text {
				t.Fatalf("%q in %q became %q", text, zone, got)
			}
		}
	})
}

// FuzzRequest: whatever is sent, nothing falls over, and every refusal is a problem or the page that says so.
func FuzzRequest(f *testing.F) {
	w := newWorld(f, f.TempDir())
	f.Cleanup(w.close)
	for _, s := range [][4]string{
		{"GET", "/e/talk/hls/main.m3u8?_HLS_msn=1", "Bearer x", "text/html"},
		{"POST", "/api/v1/session", "", `{"secret":"x","name":"y"}`},
		{"PATCH", "/api/v1/events/talk", "Bearer " + w.operator, `{"title":"A"}`},
		{"POST", "/api/v1/events", "Bearer " + w.operator, `{"title":"A","start":"2030-01-01T00:00:00Z","slug":null}`},
		{"POST", "/api/v1/events/talk/people/p_x/mute?person=a", "Basic x", "{}"},
		{"DELETE", "/e/../whip/%2e%2e", "", ""},
		{"POST", "/e/talk/whep?monitor=1", "", "v=0"},
		{"GET", "/assets/../../x", "Bearer", "br;q=x"},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, method, target, auth, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || !strings.HasPrefix(target, "/") {
			return
		}
		r, err := http.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
		if err != nil {
			return
		}
		r.RequestURI = target
		r.Header["Authorization"] = []string{auth}
		r.Header["Accept"] = []string{body}
		r.Header["If-Match"] = []string{body}
		r.Header["Content-Type"] = []string{"application/json"}
		if strings.HasPrefix(target, "/e/") {
			r.Header["Content-Type"] = []string{"application/sdp"}
		}
		out := httptest.NewRecorder()
		w.server.Config.Handler.ServeHTTP(out, r)
		switch kind := out.Header().Get("Content-Type"); {
		case out.Code >= 500:
			t.Fatalf("%d %s\n%s", out.Code, out.Body, w.log)
		case out.Code < 400 || strings.HasPrefix(kind, "text/html"):
		case kind != "application/problem+json":
			t.Fatalf("%d with %q", out.Code, kind)
		case method != http.MethodHead:
			var p struct {
				Status       int
				Code, Detail string
			}
			if err := json.Unmarshal(out.Body.Bytes(), &p); err != nil || p.Status != out.Code || p.Code == "" || p.Detail == "" {
				t.Fatalf("%v: %s", err, out.Body)
			}
		}
	})
}
