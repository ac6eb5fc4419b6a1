package rig_test

import (
	"math"
	"net"
	"testing"
	"time"

	"earshot/internal/rig"
)

func TestMeasures(t *testing.T) {
	pcm := make([]float32, 48000)
	rig.Sum(rig.Tone(440, -20), rig.Tone(700, -30))(0, pcm)
	for hz, want := range map[float64]float64{440: -20, 700: -30} {
		if got := rig.Goertzel(pcm, hz); math.Abs(got-want) > 0.2 {
			t.Errorf("%v Hz: %.2f dBFS, want %v", hz, got, want)
		}
	}
	if got := rig.Goertzel(pcm, 560); got > -100 {
		t.Errorf("560 Hz, which is not there: %.1f dBFS", got)
	}
	if got, want := rig.Level(pcm), 10*math.Log10(0.01+0.001); math.Abs(got-want) > 0.1 {
		t.Errorf("level %.2f, want %.2f", got, want)
	}
	if holes := rig.Holes(pcm, -40, 480); len(holes) != 0 {
		t.Errorf("holes in a whole sound: %v", holes)
	}
	clear(pcm[12000:13200])
	if holes := rig.Holes(pcm, -40, 480); len(holes) != 1 || holes[0] != (rig.Hole{From: 12000, Samples: 1200}) {
		t.Errorf("holes: %v, want one of 1200 samples at 12000", holes)
	}
}

func TestCorrelate(t *testing.T) {
	said, heard := make([]float32, 48000), make([]float32, 4800)
	rig.Chirpy(1, -20)(0, said)
	for i := range heard {
		heard[i] = said[12345+i] * 0.3
	}
	if lag, r := rig.Correlate(said, heard, 48000); lag != 12345 || r < 0.999 {
		t.Errorf("lag %d, correlation %.3f", lag, r)
	}
	rig.Chirpy(2, -20)(480000, heard)
	if _, r := rig.Correlate(said, heard, 48000); r > 0.7 {
		t.Errorf("another sound correlates by %.3f", r)
	}
}

// The relay does to packets what it says, and says what it did.
func TestImpair(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	relay, err := rig.NewImpair(server.LocalAddr().(*net.UDPAddr).AddrPort(), 3, rig.Conditions{
		Loss: 0.2, Duplicate: 0.1, Delay: 5 * time.Millisecond, Jitter: 10 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(relay.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const sent = 200
	for i := range sent {
		if _, err := client.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	got := map[byte]int{}
	overtaken, last := 0, -1
	var from *net.UDPAddr
	for buf := make([]byte, 10); ; {
		_ = server.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, addr, err := server.ReadFromUDP(buf)
		if err != nil {
			break
		}
		if from = addr; n != 1 {
			t.Fatalf("%d bytes", n)
		}
		if int(buf[0]) < last {
			overtaken++
		}
		last = int(buf[0])
		got[buf[0]]++
	}
	tally := relay.Tally()
	if int(tally.Passed) != len(got) || tally.Passed+tally.Lost != sent || tally.Lost < 20 || tally.Lost > 60 || tally.Duplicated == 0 || overtaken == 0 {
		t.Errorf("%d of %d came, %d out of order; %+v", len(got), sent, overtaken, tally)
	}
	relay.Set(rig.Conditions{})
	if _, err := server.WriteToUDP([]byte("back"), from); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 10)
	if n, err := client.Read(buf); err != nil || string(buf[:n]) != "back" {
		t.Errorf("the way back: %q, %v", buf[:n], err)
	}
}
