package whep

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

// However many checks come from strangers, what speakers send is read, all of it and first.
func TestStrangersDoNotCrowdOutSpeakers(t *testing.T) {
	sock := &socket{}
	s := newSpeakers(sock)
	voice, other := whereOf(netip.MustParseAddrPort("192.0.2.1:1000")), whereOf(netip.MustParseAddrPort("192.0.2.2:2000"))
	s.note(voice)
	for range 10 * strangerQueue {
		s.push([]byte("stranger"), other)
	}
	for i := range 100 {
		s.push([]byte{0x80, byte(i)}, voice)
	}
	b := make([]byte, packetMax)
	for i := range 100 {
		n, from, err := s.ReadFromAddrPort(b)
		must(t, err)
		if !bytes.Equal(b[:n], []byte{0x80, byte(i)}) || from.Port() != 1000 {
			t.Fatalf("packet %d: %q from %v", i, b[:n], from)
		}
	}
	for range strangerQueue {
		if n, _, err := s.ReadFromAddrPort(b); err != nil || string(b[:n]) != "stranger" {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	if n := sock.stray[knocking].Load(); n != 9*strangerQueue || sock.stray[crowded].Load() != 0 {
		t.Errorf("%d were counted", n)
	}
	// Nothing was sent to it for a minute: it is a stranger again.
	s.known[voice].Store(time.Now().Unix() - int64(speakersFor/time.Second) - 1)
	if s.knows(voice) {
		t.Error("it is still known")
	}
	s.note(voice)
	if !s.knows(voice) {
		t.Error("it is not known again")
	}
	must(t, s.Close())
	if _, _, err := s.ReadFromAddrPort(b); err == nil {
		t.Error("read after the end")
	}
}
