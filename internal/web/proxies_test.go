package web_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"earshot/internal/observatory"
	"earshot/internal/web"
)

var listed = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:aaaa::/48"),
}

// Who asked, and for what, as the headers of proxies say it: to be believed from listed peers alone, and of their lists only what listed
// peers wrote.
func TestSeen(t *testing.T) {
	long := strings.Repeat("10.0.0.9, ", 1000) + "10.0.0.8"
	for _, c := range []struct {
		name, peer          string
		header              [][2]string
		client, host, proto string // empty: as it came
	}{
		{name: "no headers", peer: "10.0.0.1:5000", client: "10.0.0.1"},
		{
			name: "one proxy", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7"}, {"Proto", "https"}, {"Host", "voice.example.org"}},
			client: "198.51.100.7", host: "voice.example.org", proto: "https",
		},
		{name: "a stranger says so", peer: "198.51.100.7:5000", header: [][2]string{{"For", "203.0.113.9"}, {"Proto", "https"}, {"Host", "evil.example"}}},
		{name: "a stranger claims to be a proxy", peer: "198.51.100.7:5000", header: [][2]string{{"For", "203.0.113.9, 10.0.0.1"}, {"Host", "evil.example"}}},
		{name: "the client forges an entry", peer: "10.0.0.1:5000", header: [][2]string{{"For", "203.0.113.9, 198.51.100.7"}}, client: "198.51.100.7"},
		{name: "the client forges a proxy's address", peer: "10.0.0.1:5000", header: [][2]string{{"For", "203.0.113.9, 10.0.0.2, 198.51.100.7"}}, client: "198.51.100.7"},
		{name: "the client forges a line of its own", peer: "10.0.0.1:5000", header: [][2]string{{"For", "203.0.113.9"}, {"For", "198.51.100.7"}}, client: "198.51.100.7"},
		{name: "the client forges garbage", peer: "10.0.0.1:5000", header: [][2]string{{"For", "'; drop, \x00, 198.51.100.7"}}, client: "198.51.100.7"},
		{name: "a chain", peer: "10.0.0.1:5000", header: [][2]string{{"For", "203.0.113.9, 198.51.100.7, 10.0.0.3, 10.0.0.2"}}, client: "198.51.100.7"},
		{name: "a chain over lines", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7, 10.0.0.3"}, {"For", "10.0.0.2"}}, client: "198.51.100.7"},
		{name: "nothing but proxies", peer: "10.0.0.1:5000", header: [][2]string{{"For", "10.0.0.3, 10.0.0.2"}}, client: "10.0.0.3"},
		{name: "more hops than anybody has", peer: "10.0.0.1:5000", header: [][2]string{{"For", long}}, client: "10.0.0.9"},
		{name: "an empty list", peer: "10.0.0.1:5000", header: [][2]string{{"For", ""}}, client: "10.0.0.1"},
		{name: "commas", peer: "10.0.0.1:5000", header: [][2]string{{"For", ",,,"}}, client: "10.0.0.1"},
		{name: "unknown", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7, unknown"}}, client: "10.0.0.1"},
		{name: "a name", peer: "10.0.0.1:5000", header: [][2]string{{"For", "localhost"}}, client: "10.0.0.1"},
		{name: "half an address", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100"}}, client: "10.0.0.1"},
		{name: "nowhere", peer: "10.0.0.1:5000", header: [][2]string{{"For", "0.0.0.0"}}, client: "10.0.0.1"},
		{name: "a port", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7:1234"}}, client: "198.51.100.7"},
		{name: "IPv6", peer: "[2001:db8:aaaa::1]:5000", header: [][2]string{{"For", "2001:db8::7"}}, client: "2001:db8::7"},
		{name: "IPv6 in brackets", peer: "[2001:db8:aaaa::1]:5000", header: [][2]string{{"For", "[2001:db8::7]"}}, client: "2001:db8::7"},
		{name: "IPv6 with a port", peer: "[2001:db8:aaaa::1]:5000", header: [][2]string{{"For", "[2001:DB8:0::7]:443, 2001:db8:aaaa::2"}}, client: "2001:db8::7"},
		{name: "IPv4 in brackets", peer: "10.0.0.1:5000", header: [][2]string{{"For", "[198.51.100.7]"}}, client: "10.0.0.1"},
		{name: "IPv4 inside IPv6, peer", peer: "[::ffff:10.0.0.1]:5000", header: [][2]string{{"For", "198.51.100.7"}}, client: "198.51.100.7"},
		{name: "IPv4 inside IPv6, client", peer: "10.0.0.1:5000", header: [][2]string{{"For", "::ffff:198.51.100.7"}}, client: "198.51.100.7"},
		{name: "IPv4 inside IPv6, a proxy", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7, ::ffff:10.0.0.2"}}, client: "198.51.100.7"},
		{name: "a zone", peer: "10.0.0.1:5000", header: [][2]string{{"For", "fe80::7%eth0"}}, client: "fe80::7"},
		{name: "long", peer: "10.0.0.1:5000", header: [][2]string{{"For", strings.Repeat("1", 15000)}}, client: "10.0.0.1"},
		{name: "another scheme", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7"}, {"Proto", "javascript"}}, client: "198.51.100.7", proto: "http"},
		{name: "capitals", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7"}, {"Proto", "HTTPS"}}, client: "198.51.100.7", proto: "https"},
		{name: "schemes appended", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7, 10.0.0.2"}, {"Proto", "http, https, http"}}, client: "198.51.100.7", proto: "https"},
		{name: "hosts appended", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7"}, {"Host", "evil.example, voice.example.org"}}, client: "198.51.100.7", host: "voice.example.org"},
		{name: "one scheme for a chain", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7, 10.0.0.2"}, {"Proto", "https"}}, client: "198.51.100.7", proto: "https"},
		{name: "a host that is code", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7"}, {"Host", `"><script>`}}, client: "198.51.100.7"},
		{name: "a host with a path", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7"}, {"Host", "evil.example/x"}}, client: "198.51.100.7"},
		{name: "a host with a port", peer: "10.0.0.1:5000", header: [][2]string{{"For", "198.51.100.7"}, {"Host", "voice.example.org:8443"}}, client: "198.51.100.7", host: "voice.example.org:8443"},
		{name: "no address that could be listed", peer: "@", header: [][2]string{{"For", "198.51.100.7"}, {"Proto", "https"}}},
	} {
		r := httptest.NewRequest("GET", "http://inside.example/", nil)
		r.RemoteAddr = c.peer
		for _, h := range c.header {
			r.Header.Add("X-Forwarded-"+h[0], h[1])
		}
		r.Header.Set("Forwarded", "for=203.0.113.66;proto=https;host=evil.example") // never understood
		remote, host, proto := web.Seen(listed, r)
		want := c.peer
		if c.client != "" {
			want = netip.AddrPortFrom(netip.MustParseAddr(c.client), 0).String()
		}
		if remote != want {
			t.Errorf("%s: the client is %s, want %s", c.name, remote, want)
		}
		if want := either(c.host, "inside.example"); host != want {
			t.Errorf("%s: the host is %s, want %s", c.name, host, want)
		}
		if want := either(c.proto, "http"); proto != want {
			t.Errorf("%s: the scheme is %s, want %s", c.name, proto, want)
		}
		if r.RemoteAddr != c.peer || r.Host != "inside.example" {
			t.Errorf("%s: the request itself was changed", c.name)
		}
		if remote, _, _ := web.Seen(nil, r); remote != c.peer {
			t.Errorf("%s: without a list the client is %s", c.name, remote)
		}
	}
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Whatever a header holds: a client behind a listed proxy has an address, a stranger keeps its own, and the host is fit for a link.
func FuzzSeen(f *testing.F) {
	f.Add("10.0.0.1:1", "198.51.100.7, 10.0.0.2", "https", "voice.example.org")
	f.Add("198.51.100.7:1", "[::1]:2", "http,https", "a,b")
	f.Add("[2001:db8:aaaa::1]:1", ",,[,", "", "\x00")
	f.Fuzz(func(t *testing.T, peer, list, proto, host string) {
		r := httptest.NewRequest("GET", "http://inside.example/", nil)
		r.RemoteAddr = peer
		r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-Host"] = []string{list}, []string{proto}, []string{host}
		remote, asked, scheme := web.Seen(listed, r)
		if asked != "inside.example" && strings.ContainsAny(asked, "\"'<>/@?#&% \x00") || scheme != "http" && scheme != "https" {
			t.Fatalf("%q %q", asked, scheme)
		}
		if remote == peer {
			return
		}
		if _, err := netip.ParseAddrPort(remote); err != nil {
			t.Fatalf("%q from %q by %q", remote, list, peer)
		}
	})
}

// The same three requests at a server that trusts its peer and at one that does not: the links, the guard against other sites, and how many
// listen.
func TestBehindAProxy(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		w := newWorldWith(t, t.TempDir(), func(c *web.Config) {
			if trusted {
				c.TrustedProxies = listed
			}
		})
		t.Cleanup(w.close)
		ask := func(method, path, body string, header ...string) (int, string) {
			t.Helper()
			r, err := http.NewRequest(method, w.server.URL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return res.StatusCode, string(b)
		}
		bearer := "Bearer " + w.operator
		w.mu.Lock()
		w.still = true
		w.mu.Unlock()
		start := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		if status, b := ask("POST", "/api/v1/events", `{"slug":"talk","title":"Talk","start":"`+start+`"}`, "Authorization", bearer); status != 201 {
			t.Fatal(status, b)
		}
		if status, b := ask("POST", "/api/v1/events/talk/doors", "", "Authorization", bearer); status != 200 {
			t.Fatal(status, b)
		}

		// Links name what the client asked for.
		_, b := ask("POST", "/api/v1/events/talk/invites", `{"role":"speaker"}`, "Authorization", bearer,
			"X-Forwarded-For", "198.51.100.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "voice.example.org")
		var invite struct{ Link string }
		if err := json.Unmarshal([]byte(b), &invite); err != nil {
			t.Fatal(err)
		}
		if got := strings.HasPrefix(invite.Link, "https://voice.example.org/e/talk/studio#k="); got != trusted {
			t.Errorf("trusted %t: the link is %s", trusted, invite.Link)
		}

		// A log-in from the page's own origin, by a browser without Sec-Fetch-Site: it is compared with the host that the client asked for.
		login := `{"secret":"` + w.operator + `"}`
		for origin, fits := range map[string]bool{"https://voice.example.org": trusted, "https://evil.example": false} {
			status, b := ask("POST", "/api/v1/session", login, "Origin", origin, "X-Forwarded-For", "198.51.100.7", "X-Forwarded-Host", "voice.example.org")
			if (status == 200) != fits {
				t.Errorf("trusted %t, from %s: %d %s", trusted, origin, status, b)
			}
		}

		// Two players of the same make behind one proxy are two; and one stays one, whatever it puts before its own address.
		if err := w.frames("talk", 230); err != nil {
			t.Fatal(err)
		}
		_, list := ask("GET", "/e/talk/hls/main.m3u8", "")
		segment := "/e/talk/hls/seg/" + strings.SplitN(strings.SplitN(list, "seg/", 2)[1], "\n", 2)[0]
		for _, from := range []string{"198.51.100.7", "198.51.100.8", "203.0.113.1, 198.51.100.8", "203.0.113.2, 198.51.100.8"} {
			if status, b := ask("GET", segment, "", "X-Forwarded-For", from, "User-Agent", "a player"); status != 200 {
				t.Fatal(segment, status, b)
			}
		}
		room, _ := w.Room("talk")
		want := 1
		if trusted {
			want = 2
		}
		if _, by := room.Audience.Sweep(w.now()); by[observatory.HLS] != want {
			t.Errorf("trusted %t: %d listen, want %d", trusted, by[observatory.HLS], want)
		}
	}
}
