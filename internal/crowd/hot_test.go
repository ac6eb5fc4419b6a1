//go:build linux

package crowd

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/srtp/v3"

	"earshot/internal/crowd/wire"
	"earshot/internal/peer"
	"earshot/internal/timeline"
)

// idle makes a worker whose listeners have not come yet, for what needs no network.
func idle(t *testing.T, rung string) (*worker, *listener) {
	t.Helper()
	cfg := Config{URL: "http://127.0.0.1:1/e/x", Rung: rung, Listeners: 1, Sample: -1, RED: true, NACK: true}
	if err := cfg.fill(); err != nil {
		t.Fatal(err)
	}
	target, err := reach(t.Context(), &cfg, cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	target.Origin = time.Now().Add(-time.Minute)
	w, err := newWorker(job{Config: cfg, Target: *target, Step: 1, Due: []int64{0}}, func(Row) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.audit.close()
		if w.rtc != nil {
			w.rtc.close()
		}
		w.loop.close()
	})
	l := &w.crowd[0]
	l.state, l.dialed = dialing, w.loop.clock()
	w.dialing++
	return w, l
}

func parts(t *testing.T, n int) []*timeline.Part {
	t.Helper()
	tl, err := timeline.New(timeline.Config{Origin: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var out []*timeline.Part
	for f := range uint64(n * 10) {
		if err := tl.Append(timeline.Frame{Number: f, Packet: append([]byte{0x78}, make([]byte, 80)...)}); err != nil {
			t.Fatal(err)
		}
		if f%10 == 9 {
			p, err := tl.Part(f / 10)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, p)
		}
	}
	return out
}

// What is done for each message of each listener allocates nothing: a crowd that collects garbage measures itself.
func TestHotPathsAllocateNothing(t *testing.T) {
	const runs = 200
	all := parts(t, runs+20)
	ws := func(op byte, b []byte) []byte {
		return append([]byte{0x80 | op, 126, byte(len(b) >> 8), byte(len(b))}, b...)
	}
	for _, c := range []struct {
		rung    string
		begin   func(*listener)
		message func(*timeline.Part) []byte
	}{
		{Push, func(l *listener) {
			p := l.client.(*pushClient)
			p.upgraded, p.began = true, true
		}, func(p *timeline.Part) []byte { return ws(wire.WSBinary, p.Media) }},
		{MP4, func(l *listener) {
			s := l.client.(*streamClient)
			s.head, s.body = true, wire.Head{Length: -1}.Body()
		}, func(p *timeline.Part) []byte { return p.Media }},
		{Ogg, func(l *listener) {
			s := l.client.(*streamClient)
			s.head, s.body = true, wire.Head{Length: -1}.Body()
			if _, err := s.received(&conn{loop: l.w.loop, count: new(int64)}, timeline.OggHeaders()); err != nil {
				t.Fatal(err)
			}
		}, func(p *timeline.Part) []byte { return p.Ogg }},
	} {
		w, l := idle(t, c.rung)
		c.begin(l)
		from := &conn{loop: w.loop, count: new(int64), to: l.client.(reader)}
		i := 0
		var messages [][]byte
		for _, p := range all {
			messages = append(messages, c.message(p))
		}
		step := func() {
			w.loop.now += 200 * ms
			from.take(messages[i])
			i++
		}
		step()
		step()
		if n := testing.AllocsPerRun(runs, step); n != 0 {
			t.Errorf("%s: %v allocations a message", c.rung, n)
		}
		if from.closed || l.state != hearing || l.endFrame != uint64(i*10) || w.tally.LostFrames != 0 || w.tally.Malformed != 0 {
			t.Errorf("%s: %d messages, then frame %d, %+v", c.rung, i, l.endFrame, w.tally.Lost)
		}
	}
}

func TestPacketsAllocateNothing(t *testing.T) {
	w, l := idle(t, WebRTC)
	r := l.client.(*rtcClient)
	key, salt := make([]byte, 16), make([]byte, 12)
	context := func() *srtp.Context {
		c, err := srtp.CreateContext(key, salt, srtp.ProtectionProfileAeadAes128Gcm)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	out := context()
	r.keys, r.state, r.remote = &keys{in: context(), out: context()}, hears, netip.MustParseAddrPort("127.0.0.1:9")
	r.answer = &wire.Answer{Opus: 111}
	const runs = 300
	base := uint32(50 * 60 * 960) // the timeline is a minute old
	packets := make([][]byte, runs+20)
	for i := range packets {
		b := make([]byte, 12+80)
		b[0], b[1], b[2], b[3] = 0x80, 111, byte(i>>8), byte(i)
		ts := base + uint32(i)*960
		b[4], b[5], b[6], b[7] = byte(ts>>24), byte(ts>>16), byte(ts>>8), byte(ts)
		b[12] = 0x78
		var err error
		if packets[i], err = out.EncryptRTP(nil, b, nil); err != nil {
			t.Fatal(err)
		}
	}
	i := 0
	step := func() {
		w.loop.now += 20 * ms
		r.packet(r.remote, w.loop.now, packets[i])
		i++
	}
	step()
	step()
	if n := testing.AllocsPerRun(runs, step); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
	if w.tally.LostFrames != 0 || w.tally.Malformed != 0 || w.tally.Packets != int64(i) || l.state != hearing {
		t.Errorf("after %d packets: %+v", i, w.tally)
	}
}

// One playlist is read once, however many get it.
func TestPlaylistsAreShared(t *testing.T) {
	w, _ := idle(t, HLS)
	const body = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.2\n#EXT-X-PART-INF:PART-TARGET=0.4\n" +
		"#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2,\nseg/7.m4s\n#EXT-X-PART:DURATION=0.4,URI=\"part/8.0.m4s\"\n"
	a, err := w.readList("/e/x/hls/main.m3u8", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(a.reload); got != string(w.get("/e/x/hls/main.m3u8?_HLS_msn=8&_HLS_part=1")) {
		t.Errorf("it reloads by %q", got)
	}
	if got := string(a.parts[1][0]); got != string(w.get("/e/x/hls/part/8.0.m4s")) {
		t.Errorf("it fetches by %q", got)
	}
	b := []byte(body)
	if n := testing.AllocsPerRun(100, func() {
		again, err := w.readList("/e/x/hls/main.m3u8", b)
		if err != nil || again != a {
			t.Errorf("%p, %p, %v", again, a, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for uri, want := range map[string]string{"../x.ts": "/e/x/x.ts", "/y?z=1": "/y?z=1", "http://127.0.0.1:1/q": "/q"} {
		if got, err := w.resolve("/e/x/hls/main.m3u8", uri); err != nil || got != want {
			t.Errorf("%s is %s, %v", uri, got, err)
		}
	}
	for _, uri := range []string{"http://127.0.0.1:2/q", "//other/q", "https://127.0.0.1:1/q", "a b", "ftp://127.0.0.1:1/"} {
		if got, err := w.resolve("/e/x/hls/main.m3u8", uri); err == nil {
			t.Errorf("%s is %s", uri, got)
		}
	}
}

// The offer is one that the server's own reader takes for a browser's.
func TestOffer(t *testing.T) {
	w, l := idle(t, WebRTC)
	c := l.client.(*rtcClient)
	c.user, c.password = "abcd", "0123456789012345678901"
	o, err := peer.ReadOffer([]byte(w.rtc.offer(c)))
	if err != nil {
		t.Fatal(err)
	}
	if !o.Receives || o.Sends || o.Passive || o.Opus != 111 || o.RED != 63 || !o.NACK {
		t.Errorf("%+v", o)
	}
	w.cfg.RED, w.cfg.NACK = false, false
	if o, err = peer.ReadOffer([]byte(w.rtc.offer(c))); err != nil || o.RED != 0 || o.NACK {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestCandidates(t *testing.T) {
	w, _ := idle(t, WebRTC)
	addr := netip.MustParseAddrPort
	if got, err := w.choose([]netip.AddrPort{addr("192.0.2.1:5"), addr("127.0.0.1:6")}); err != nil || got != addr("127.0.0.1:6") {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := w.choose([]netip.AddrPort{addr("192.0.2.1:5"), addr("8.8.8.8:6"), addr("[::1]:7")}); err == nil {
		t.Errorf("%v was chosen", got)
	}
	w.job.Target.Addr = addr("192.0.2.1:443")
	for _, c := range []string{"127.0.0.1:6", "192.0.2.2:5"} {
		if got, err := w.choose([]netip.AddrPort{addr(c)}); err == nil {
			t.Errorf("%v was chosen", got)
		}
	}
	for location, want := range map[string]string{
		"/e/x/whep/1": "/e/x/whep/1", "http://127.0.0.1:1/e/x/whep/1": "/e/x/whep/1", "http://192.0.2.1/x": "", "//other/x": "", "x": "", "/a b": "",
	} {
		if got := pathOf(location, &w.job.Target); got != want {
			t.Errorf("%q is %q, want %q", location, got, want)
		}
	}
}

// Each listener has an address of its own, from which it can be found again.
func TestSources(t *testing.T) {
	w, l := idle(t, WebRTC)
	seen := map[netip.Addr]bool{}
	for _, id := range []int32{0, 1, 253, 254, 255, 65534, 65535, 1_299_999, 4_999_999} {
		l.id = id
		a := l.source()
		if !a.IsLoopback() || seen[a] {
			t.Errorf("listener %d comes from %s", id, a)
		}
		seen[a] = true
		w.job.First = int(id)
		l.client.(*rtcClient).remote, l.client.(*rtcClient).state = netip.MustParseAddrPort("127.0.0.1:9"), checks
		before := w.tally.Bytes
		w.rtc.datagram(nil, netip.MustParseAddrPort("127.0.0.1:9"), a, 0, []byte{200, 0, 0})
		if w.tally.Bytes != before+3 {
			t.Errorf("what is sent to %s does not reach listener %d", a, id)
		}
	}
	for _, a := range []string{"127.0.0.1", "10.0.0.1", "127.255.255.255"} {
		before := w.tally.Bytes
		w.job.First = 0
		w.rtc.datagram(nil, netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddr(a), 0, []byte{200, 0, 0})
		if w.tally.Bytes != before {
			t.Errorf("what is sent to %s reaches somebody", a)
		}
	}
}

// The timers come in their order, and those of a connection that is over do nothing.
func TestTimers(t *testing.T) {
	var h timers
	order := []int64{5, 3, 9, 1, 7, 3, 8, 2}
	for _, at := range order {
		h.push(timer{at: at})
	}
	last := int64(0)
	for range order {
		tm, ok := h.due(100)
		if !ok || tm.at < last {
			t.Fatalf("%d after %d", tm.at, last)
		}
		last = tm.at
	}
	if _, ok := h.due(100); ok {
		t.Error("an empty heap has a timer")
	}
	h.push(timer{at: 5})
	if _, ok := h.due(4); ok {
		t.Error("a timer is due before its time")
	}
}

// Loss, repair and reordering, packet by packet.
func TestFramesLostAndRepaired(t *testing.T) {
	type arrival struct {
		first uint64
		n     int
		ahead int16
	}
	for name, c := range map[string]struct {
		come                     []arrival
		lost, repaired, repeated int64
	}{
		"in order":          {[]arrival{{1, 1, 1}, {2, 1, 1}, {3, 1, 1}}, 0, 0, 0},
		"one lost":          {[]arrival{{1, 1, 1}, {3, 1, 2}, {4, 1, 1}}, 1, 0, 0},
		"one repaired":      {[]arrival{{1, 1, 1}, {3, 1, 2}, {2, 1, 0}, {4, 1, 1}}, 0, 1, 0},
		"reordered":         {[]arrival{{1, 1, 1}, {3, 1, 2}, {2, 1, -1}, {4, 1, 1}}, 0, 1, 0},
		"twice":             {[]arrival{{1, 1, 1}, {2, 1, 1}, {2, 1, -1}}, 0, 0, 1},
		"six frames lost":   {[]arrival{{0, 6, 1}, {12, 6, 2}}, 6, 0, 0},
		"a hundred lost":    {[]arrival{{1, 1, 1}, {102, 1, 101}}, 100, 0, 0},
		"length goes up":    {[]arrival{{1, 1, 1}, {2, 3, 1}, {5, 6, 1}, {11, 1, 1}}, 0, 0, 0},
		"a jump by restart": {[]arrival{{1, 1, 1}, {2000, 1, 1}}, 0, 0, 0},
	} {
		w, l := idle(t, WebRTC)
		r := l.client.(*rtcClient)
		w.origin = time.Now().UnixNano() - int64(time.Second)
		w.loop.begin(time.Unix(0, w.origin)) // frame n is at n × 20 ms of the loop's time
		at := int64(0)
		for _, a := range c.come {
			toc := map[int][]byte{1: {0x78, 0}, 3: {0x7b, 3, 0}, 6: {0x7b, 6, 0}}[a.n]
			if a.ahead > 0 {
				at = int64(a.first) * frame
			}
			r.frames(at, uint32(a.first*960), toc, a.ahead)
		}
		w.loop.now = at + 500*ms
		l.player.advance(l.habits, w.loop.now)
		r.settle()
		if w.tally.LostFrames != c.lost || w.tally.Repaired != c.repaired || w.tally.Repeats != c.repeated {
			t.Errorf("%s: %d lost, %d repaired, %d repeated; want %d, %d, %d", name, w.tally.LostFrames, w.tally.Repaired, w.tally.Repeats,
				c.lost, c.repaired, c.repeated)
		}
	}
}

// A server elsewhere is asked before anything else is sent, and whatever it says but yes is no.
func TestConsent(t *testing.T) {
	for answer, fine := range map[string]bool{
		`{"listeners":5000}`: true, `{"listeners":4999}`: false, `{}`: false, `null`: false, `<html>`: false, `{"listeners":"9999"}`: false,
	} {
		if err := consents([]byte(answer), 5000); (err == nil) != fine {
			t.Errorf("%s: %v", answer, err)
		}
	}
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path+" "+r.Header.Get("Authorization"))
		switch r.Header.Get("Authorization") {
		case "Bearer ec_good":
			_, _ = io.WriteString(w, `{"listeners":100}`)
		case "Bearer ec_moved":
			http.Redirect(w, r, "/yes", http.StatusFound)
		default:
			http.Error(w, `{"listeners":100}`, http.StatusUnauthorized)
		}
	}))
	defer s.Close()
	// The address that is asked is the one that was resolved; this one is somewhere else, and the test's client takes it back here.
	far := &target{Host: "crowd.example", Addr: netip.MustParseAddrPort("192.0.2.1:80")}
	near := &target{Addr: netip.MustParseAddrPort(s.Listener.Addr().String())}
	client := near.client()
	defer client.CloseIdleConnections()
	for token, want := range map[string]string{
		"ec_good": "", "ec_moved": "redirects", "ec_bad": "401", "": "--token", "eo_operator": "over https alone",
	} {
		err := far.consent(t.Context(), client, token, 100)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("with token %q: %v", token, err)
		}
	}
	if err := far.consent(t.Context(), client, "ec_good", 101); err == nil {
		t.Error("more listeners were let go than the server consents to")
	}
	for _, a := range asked {
		if !strings.HasPrefix(a, consentPath+" Bearer ec_") {
			t.Errorf("%s was asked", a)
		}
	}
	if len(asked) != 4 {
		t.Errorf("asked %d times", len(asked))
	}
}
