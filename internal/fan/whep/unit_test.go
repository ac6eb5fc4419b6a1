package whep

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"

	"earshot/internal/timeline"
)

// Whatever changes between frames, the packets of a lane hold all frames, in order, each once, none longer than its length or the path.
func TestLaneProperty(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		frames := lengths[rnd.IntN(3)]
		l := &lane{frames: frames, phase: rnd.IntN(frames)}
		var want, got [][]byte
		n, toc := uint64(rnd.IntN(1000)), byte(15<<3)
		take := func() {
			if l.n == 0 {
				return
			}
			l.close(0)
			p := l.ring[(l.made-1)%uint64(len(l.ring))]
			if len(p.plain) > payloadMax && p.frames > 1 || p.frames > frames {
				t.Fatalf("a packet of %d frames, %d bytes", p.frames, len(p.plain))
			}
			one, ok := timeline.Unpack(nil, p.plain)
			if !ok || len(one) != p.frames {
				t.Fatalf("%d frames in %x", p.frames, p.plain)
			}
			for i, f := range one {
				got = append(got, append(binary.BigEndian.AppendUint64(nil, p.first+uint64(i)), f...))
			}
		}
		for range 100 {
			switch rnd.IntN(12) {
			case 0:
				toc = []byte{15 << 3, 31 << 3, 1 << 3}[rnd.IntN(3)]
			case 1:
				take() // a gap
				n += uint64(rnd.IntN(200))
			}
			f := make([]byte, 1+rnd.IntN([]int{100, 100, 500, timeline.MaxPacket}[rnd.IntN(4)]))
			for i := range f {
				f[i] = byte(rnd.Uint32())
			}
			f[0] = toc
			if l.closes(n, f) {
				take()
			}
			if l.add(n, f) {
				if (n+1)%uint64(frames) != uint64(l.phase) && l.n < frames {
					t.Fatal("full, and is not")
				}
				take()
			}
			want = append(want, append(binary.BigEndian.AppendUint64(nil, n), f...))
			n++
		}
		take()
		if len(got) != len(want) {
			t.Fatalf("%d frames of %d", len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d: %x, want %x", i, got[i][:9], want[i][:9])
			}
		}
	}
}

// Sessions that come and go while a lane's packet is being sent: who stays gets each packet once.
func TestLaneTurns(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	l := &lane{frames: 1}
	served := map[*session]int{}
	for step := range 5_000 {
		switch rnd.IntN(6) {
		case 0, 1:
			s := &session{lane: l, lanePos: len(l.sessions)}
			l.sessions = append(l.sessions, s)
		case 2:
			if n := len(l.sessions); n > 0 && n > rnd.IntN(60) {
				s := l.sessions[rnd.IntN(n)]
				l.take(s)
				delete(served, s)
			}
		default:
			for k := rnd.IntN(10); k > 0 && l.cursor < len(l.sessions); k-- {
				served[l.sessions[l.cursor]]++
				l.cursor++
			}
		}
		for i, s := range l.sessions {
			if s.lanePos != i {
				t.Fatalf("step %d: session %d thinks it is %d", step, i, s.lanePos)
			}
			if want := map[bool]int{true: 1}[i < l.cursor]; served[s] != want {
				t.Fatalf("step %d: session %d of %d was served %d times, cursor %d", step, i, len(l.sessions), served[s], l.cursor)
			}
		}
		if l.cursor == len(l.sessions) {
			l.cursor = 0
			clear(served)
		}
	}
}

func material(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*37 + 11)
	}
	return b
}

// Our SRTP and SRTCP are the library's, bit for bit, beyond the roll-over of sequence numbers.
func TestSRTPIsTheLibrarys(t *testing.T) {
	m := material(materialSize(true))
	k, err := newKeyring(true, m)
	must(t, err)
	theirs, err := srtp.CreateContext(m[16:32], m[44:], srtp.ProtectionProfileAeadAes128Gcm)
	must(t, err)
	client, err := srtp.CreateContext(m[:16], m[32:44], srtp.ProtectionProfileAeadAes128Gcm)
	must(t, err)
	const ssrc = 0xdecafbad
	var iv [saltSize]byte
	for index := uint64(30_000); index < 140_000; index++ {
		b := make([]byte, 200)
		b[0], b[1] = 0x80, 111
		binary.BigEndian.PutUint16(b[2:], uint16(index))
		binary.BigEndian.PutUint32(b[4:], uint32(index*960))
		binary.BigEndian.PutUint32(b[8:], ssrc)
		payload := voice(index)
		want, err := theirs.EncryptRTP(nil, append(b[:rtpHeader:rtpHeader], payload...), nil)
		must(t, err)
		n, err := k.sealRTP(b, payload, ssrc, index, &iv)
		must(t, err)
		if !bytes.Equal(b[:n], want) {
			t.Fatalf("packet %d: %x, want %x", index, b[:n], want)
		}
	}
	for index := range uint32(200) {
		b := make([]byte, 200)
		n := report(b, ssrc, time.Unix(1e9, 5e8), index, 7, 8)
		if _, err := rtcp.Unmarshal(b[:n]); err != nil {
			t.Fatal(err)
		}
		want, err := theirs.EncryptRTCP(nil, b[:n], nil)
		must(t, err)
		if n, err = k.sealRTCP(b, n, binary.BigEndian.Uint32(want[len(want)-4:])&^(1<<31)); err != nil || !bytes.Equal(b[:n], want) {
			t.Fatalf("report %d: %x, %v, want %x", index, b[:n], err, want)
		}
	}
	var w window
	var sealed [][]byte
	for range 200 {
		plain, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 5}})
		must(t, err)
		b, err := client.EncryptRTCP(nil, plain, nil)
		must(t, err)
		sealed = append(sealed, b)
	}
	for i := range sealed {
		j := i ^ 1 // neighbours swapped
		if _, err := k.openRTCP(bytes.Clone(sealed[j]), &w); err != nil {
			t.Fatalf("packet %d: %v", j, err)
		}
		if _, err := k.openRTCP(bytes.Clone(sealed[j]), &w); err == nil {
			t.Fatalf("packet %d came twice", j)
		}
	}
	if _, err := k.openRTCP(bytes.Clone(sealed[3]), &w); err == nil {
		t.Error("an old packet came again")
	}
}

// RTP's clock goes on for as long as an event may.
func TestSamplesAfterAWeek(t *testing.T) {
	for _, d := range []time.Duration{0, 20 * time.Millisecond, -time.Second, 53*time.Hour + 22*time.Minute, 7*24*time.Hour + 123456789, 1000 * time.Hour} {
		want := new(big.Int).Mul(big.NewInt(int64(d)), big.NewInt(48000))
		want.Quo(want, big.NewInt(int64(time.Second)))
		if got := samples(d); got != uint32(want.Int64()) {
			t.Errorf("%v: %d, want %v", d, got, want)
		}
	}
}

// The pace by itself, with time as an argument.
func TestPace(t *testing.T) {
	var p pace
	p.init()
	now, every := int64(0), int64(paceEvery)
	run := func(busy float64, d time.Duration) (changes []int) {
		for end := now + int64(d); now < end; now += every {
			if p.observe(now, busy, false) {
				changes = append(changes, p.frames())
			}
		}
		return changes
	}
	expect := func(what string, got []int, want ...int) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s: %v, want %v", what, got, want)
			}
		}
	}
	expect("calm", run(0.3, time.Minute))
	expect("one peak", run(0.9, 2*time.Second))
	expect("calm again", run(0.7, time.Minute))
	expect("load", run(0.9, 4*time.Second), 3)
	expect("before the longer packets have come", run(0.9, 12*time.Second))
	expect("still too much", run(0.9, 6*time.Second), 6)
	expect("the longest there are", run(0.95, time.Minute))
	expect("less, but 60 ms would be twice that", run(0.21, time.Minute))
	expect("calm for half a minute", run(0.1, 34*time.Second), 3)
	expect("three times that is too much", run(0.15, time.Minute))
	expect("quiet", run(0.1, 34*time.Second), 1)
	expect("the shortest there are", run(0.01, time.Minute))
	if !p.setFloor(3) || p.frames() != 3 || p.setFloor(3) {
		t.Error("the operator's wish")
	}
	expect("load beyond the operator's wish", run(0.9, 4*time.Second), 6)
	expect("back to the operator's wish", run(0.05, 52*time.Second), 3)
	if p.setFloor(1) || p.frames() != 3 {
		t.Errorf("the operator's wish taken back, and load's not: %d", p.frames())
	}
	expect("and load's", run(0.01, time.Minute), 1)
	for range 5 {
		if p.observe(now, 0.99, true) {
			t.Error("a fixed pace changed")
		}
	}
}

// Each length is announced long enough before, and where packets of all lengths begin.
func TestPlan(t *testing.T) {
	p := planFrom(1)
	p, a := p.then(1001, 3)
	p, b := p.then(1020, 6)
	p, c := p.then(1030, 1)
	if a < 1501 || a%6 != 0 || b <= a || b%6 != 0 || c <= b || c%6 != 0 {
		t.Errorf("from %d, %d, %d", a, b, c)
	}
	for n, want := range map[uint64]int{0: 1, a - 1: 1, a: 3, b - 1: 3, b: 6, c - 1: 6, c: 1, c + 999: 1} {
		if got := p.at(n); got != want {
			t.Errorf("at %d: %d, want %d", n, got, want)
		}
	}
	for i := range uint64(1000) {
		p, _ = p.then(10_000+2000*i, lengths[i%3])
		if len(p.steps) > 3 {
			t.Fatalf("%d steps are kept", len(p.steps))
		}
	}
}

// idle gives a shard without a goroutine, with sessions that nobody else touches, which can be served at will.
func idle(tb testing.TB, n int, red bool, packet int) (*shard, *feed, *lane) {
	h := newHall(tb, "127.0.0.1:0", func(c *Config) { c.Shards = 1 })
	sink, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	must(tb, err)
	tb.Cleanup(func() { _ = sink.Close() })
	ch := newChannel(h.src, 1, 1)
	sh := newShard(h.engine, 0)
	frames, _ := framesOf(packet)
	for i := range n {
		k, err := newKeyring(true, material(materialSize(true)))
		must(tb, err)
		s := &session{in: h.engine, ch: ch, keys: k, ssrc: uint32(i), opus: 111, wish: frames}
		if red {
			s.red = 63
		}
		sh.join(s, path{udp: whereOf(sink.LocalAddr().(*net.UDPAddr).AddrPort())}, 0)
	}
	h.grow(18)
	f := sh.feeds[0]
	sh.pull(f, 0)
	sh.finish(f)
	for _, l := range f.lanes {
		if len(l.sessions) > 0 {
			return sh, f, l
		}
	}
	tb.Fatal("no lane")
	return nil, nil, nil
}

// A slot is as late as it comes after its own time, however many come at once.
func TestLateness(t *testing.T) {
	sh, f, l := idle(t, slotLeast*slots+1, false, 20) // a quarter and one in each slot but the last
	f.next -= longest
	sh.pull(f, 0)
	before := sh.in.Stats()
	if next := sh.serve(f, l, 0); next != int64(slot) {
		t.Errorf("the second slot comes after %v", time.Duration(next))
	}
	sh.serve(f, l, int64(slot+3*time.Millisecond))
	sh.serve(f, l, int64(60*time.Millisecond)) // the third by 50, the fourth by 45
	after := sh.in.Stats()
	var late [len(after.Late)]uint64
	for i := range late {
		late[i] = after.Late[i] - before.Late[i]
	}
	if want := [...]uint64{1, 0, 1, 0, 0, 2, 0}; late != want {
		t.Errorf("late by classes: %v, want %v", late, want)
	}
	if sum := after.LateSum - before.LateSum; sum != 98*time.Millisecond {
		t.Errorf("late by %v altogether", sum)
	}
	if n, atMost := after.Lateness(); n < 4 || atMost[0.05] != n {
		t.Errorf("%d slots, of which %v", n, atMost)
	}
}

// Sending allocates nothing: not the packet, not the seal, not the system call; and neither does answering a check.
func TestNoAllocations(t *testing.T) {
	for _, red := range []bool{false, true} {
		for _, ms := range []int{20, 60, 120} {
			sh, f, l := idle(t, 6, red, ms)
			end := f.next
			again := func() {
				f.next = end - longest // the same frames again, as if they were new
				sh.pull(f, 0)
				sh.serve(f, l, 0)
				sh.out.flush()
			}
			for range 100 { // until the rings have their buffers
				again()
			}
			if n := testing.AllocsPerRun(200, again); n != 0 {
				t.Errorf("red %v, %d ms: %v allocations", red, ms, n)
			}
		}
	}
	h := newHall(t, "127.0.0.1:0")
	l := h.dial(plainOffer(t), 0, nil)
	r := &receiver{port: h.port, mac: newHMAC(), out: newOutbox(h.port.sock, &h.port.sock.stray[crowded], &h.port.sock.stray[crowded])}
	h.engine.mu.RLock()
	from := h.engine.sessions[l.id].paths[0]
	h.engine.mu.RUnlock()
	check, forged, hi := l.check(true), l.check(true), hello()
	forged[len(forged)-20]++
	other := whereOf(netip.MustParseAddrPort("127.0.0.1:9"))
	e := h.port.engine.Load()
	least := 1.0
	for range 20 { // the handshake's remains may still allocate a little
		least = min(least, testing.AllocsPerRun(200, func() {
			r.take(e, check, from)
			r.take(e, forged, other)
			r.take(e, hi, other)
			r.out.flush()
		}))
	}
	if least != 0 {
		t.Errorf("%v allocations for a check", least)
	}
}

func BenchmarkSend(b *testing.B) {
	for _, ms := range []int{20, 60, 120} {
		b.Run(map[int]string{20: "20ms", 60: "60ms", 120: "120ms"}[ms], func(b *testing.B) {
			sh, f, l := idle(b, 64*ms/20, false, ms)
			n := 0
			for b.Loop() {
				l.cursor = 0
				sh.serveAll(f, l)
				sh.out.flush()
				n += len(l.sessions)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
		})
	}
}

func BenchmarkSeal(b *testing.B) {
	k, err := newKeyring(true, material(materialSize(true)))
	must(b, err)
	var iv [saltSize]byte
	buf, payload := make([]byte, packetMax), voice(7)
	for b.Loop() {
		_, _ = k.sealRTP(buf, payload, 1, 1, &iv)
	}
}

func BenchmarkCheck(b *testing.B) {
	h := newHall(b, "127.0.0.1:0")
	l := h.dial(plainOffer(b), 0, nil)
	mac, raw := newHMAC(), l.check(true)
	out := make([]byte, 200)
	var at where
	for b.Loop() {
		c, _ := readCheck(raw)
		if !c.authentic(mac, []byte(l.pwd)) {
			b.Fatal("not authentic")
		}
		c.answer(out, mac, []byte(l.pwd), at)
	}
}

func FuzzReadCheck(f *testing.F) {
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("a:b"), stun.NewShortTermIntegrity("c"), stun.Fingerprint).Raw)
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("abcdefgh"), stun.RawAttribute{Type: stun.AttrUseCandidate}, stun.NewShortTermIntegrity("c")).Raw)
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingSuccess, stun.NewShortTermIntegrity("c"), stun.Fingerprint).Raw)
	mac := newHMAC()
	f.Fuzz(func(t *testing.T, b []byte) {
		c, why := readCheck(b)
		if why != keep {
			return
		}
		m := &stun.Message{Raw: bytes.Clone(b)}
		if err := m.Decode(); err != nil {
			t.Fatalf("passed %x: %v", b, err)
		}
		// Authentic here is authentic to the library.
		if c.authentic(mac, []byte("c")) {
			if err := stun.NewShortTermIntegrity("c").Check(m); err != nil {
				t.Fatalf("%x: %v", b, err)
			}
		}
		out := make([]byte, stunAnswerMax)
		for _, from := range []where{{}, whereOf(netip.MustParseAddrPort("1.2.3.4:5"))} {
			if n := c.answer(out, mac, []byte("c"), from); n > len(b) {
				t.Fatalf("%d bytes answer %d", n, len(b))
			}
		}
	})
}

// Our own checks are what the library takes for a controlled agent's, whatever the client's credentials, and never longer than theirs.
func TestAsk(t *testing.T) {
	mac := newHMAC()
	for _, n := range []int{4, 5, 6, 7, 64, 256} {
		theirs, pwd := strings.Repeat("u", n), strings.Repeat("p", max(22, n))
		b := make([]byte, packetMax)
		for i := range b {
			b[i] = 0xff
		}
		size := ask(b, mac, theirs, ufrag([]byte("abcdefgh")), shortKey(pwd), tid{1, 2, 3}, [8]byte{9})
		m := &stun.Message{Raw: bytes.Clone(b[:size])}
		must(t, m.Decode())
		must(t, stun.NewShortTermIntegrity(pwd).Check(m))
		must(t, stun.Fingerprint.Check(m))
		var name stun.Username
		must(t, name.GetFrom(m))
		priority, err := m.Get(stun.AttrPriority)
		must(t, err)
		if name.String() != theirs+":abcdefgh" || m.Type != stun.BindingRequest || !bytes.Equal(priority, []byte{110, 0xff, 0xff, 0xff}) || !m.Contains(stun.AttrICEControlled) {
			t.Errorf("%v", m)
		}
		s := &session{in: &Engine{}, theirs: theirs}
		if _, asks := s.question(path{}, true, 1e9, size-1); asks {
			t.Error("the question is longer than what caused it")
		}
		if _, asks := s.question(path{}, true, 1e9, size); !asks {
			t.Error("not asked")
		}
	}
}

func FuzzFeedback(f *testing.F) {
	for _, p := range [][]rtcp.Packet{
		{&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 7, FractionLost: 3}}}},
		{&rtcp.ReceiverReport{SSRC: 1}, &rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: 1, LostPackets: 3}}}},
		{&rtcp.SenderReport{SSRC: 1}, &rtcp.Goodbye{Sources: []uint32{1}}},
	} {
		b, err := rtcp.Marshal(p)
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var fb feedback
		ok := fb.read(b, 7)
		if fb.nacks > maxNACKs || fb.strange < 0 || fb.strange > len(b)/12 {
			t.Fatalf("%+v", fb)
		}
		packets, err := rtcp.Unmarshal(b)
		if err != nil || !ok {
			return
		}
		var nacks []nackPair
		bye := false
		for _, p := range packets {
			switch p := p.(type) {
			case *rtcp.TransportLayerNack:
				if p.MediaSSRC == 7 {
					for _, n := range p.Nacks {
						nacks = append(nacks, nackPair{n.PacketID, uint16(n.LostPackets)})
					}
				}
			case *rtcp.Goodbye:
				bye = true
			}
		}
		if bye && !fb.bye {
			t.Fatal("a farewell was not heard")
		}
		for i, n := range nacks[:min(len(nacks), maxNACKs)] {
			if i >= fb.nacks || fb.nack[i] != n {
				t.Fatalf("%v, want %v", fb.nack[:fb.nacks], nacks)
			}
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 3, 1, 2, 3, 0, 0, 0, 1, 9})
	f.Add([]byte{0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var buf [packetMax]byte
		at := 0
		for {
			n, err := readFrame(r, buf[:])
			if err != nil {
				return
			}
			if !bytes.Equal(buf[:n], b[at+2:at+2+n]) {
				t.Fatalf("frame at %d: %x", at, buf[:n])
			}
			at += 2 + n
		}
	})
}

// The demultiplexer, with a listener's address and a stranger's.
func FuzzTake(f *testing.F) {
	h := newHall(f, "127.0.0.1:0")
	l := h.dial(nackOffer(f), 0, nil)
	h.wait("in", func() bool { return h.engine.Stats().Listeners == 1 })
	h.engine.mu.RLock()
	s := h.engine.sessions[l.id]
	mine := s.paths[0]
	h.engine.mu.RUnlock()
	r := &receiver{port: h.port, mac: newHMAC(), out: newOutbox(h.port.sock, &h.port.sock.stray[crowded], &h.port.sock.stray[crowded])}
	f.Add(l.check(true), true)
	f.Add(hello(), false)
	f.Add([]byte{0x81, 201, 0, 1, 0, 0, 0, 1}, true)
	f.Add([]byte{21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 1, 0}, true)
	f.Add([]byte{22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 1, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, listener bool) {
		if len(b) > packetMax {
			return
		}
		from := whereOf(netip.MustParseAddrPort("127.0.0.1:9"))
		if listener {
			from = mine
		}
		r.take(h.engine, bytes.Clone(b), from)
		r.out.n = 0 // nothing is sent
		h.engine.mu.RLock()
		sessions, paths := len(h.engine.sessions), len(h.engine.byPath)
		h.engine.mu.RUnlock()
		if sessions != 1 || paths > 1 && !bytes.Contains(b, []byte(l.names[:8])) {
			t.Fatalf("%x: %d sessions, %d addresses", b, sessions, paths)
		}
	})
}
