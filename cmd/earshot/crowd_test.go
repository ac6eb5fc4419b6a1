package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"earshot/internal/app"
	"earshot/internal/crowd"
)

// node runs a server with the demo for as long as the test, and gives its address.
func node(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a, err := app.New(ctx, app.Config{
		Listen: "127.0.0.1:0", UDP: "127.0.0.1:0", Data: t.TempDir(), Demo: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a.URL()
}

// A crowd on all rungs at once at a real server: all join, every frame arrives, and what the sample decodes is the programme. (Gaps are
// not judged here: the race detector and whoever else is on the machine make them.)
func TestCrowd(t *testing.T) {
	url := node(t)
	var wg sync.WaitGroup
	for _, c := range []crowd.Config{
		{Rung: crowd.Push, Listeners: 200},
		{Rung: crowd.WebRTC, Listeners: 50, RED: true},
		{Rung: crowd.WebRTC, Listeners: 10, Light: true, Sample: 1},
		{Rung: crowd.Ogg, Listeners: 50},
		{Rung: crowd.HLS, Listeners: 50, Curve: "flash"},
		{Rung: crowd.MP4, Listeners: 10, Curve: "steps:2"},
		{Rung: crowd.Cues, Listeners: 10},
	} {
		c.URL, c.Arrive, c.Hold, c.Seed = url+"/e/demo", time.Second, 5*time.Second, 1
		wg.Go(func() {
			r, err := crowd.Run(t.Context(), c)
			if err != nil {
				t.Errorf("%s: %v", c.Rung, err)
				return
			}
			if r.Joined != int64(c.Listeners) || len(r.Failed) > 0 || len(r.Lost) > 0 || r.Malformed > 0 || r.LostFrames > 0 || r.Repeats > 0 {
				t.Errorf("%s: not all joined, or not all was heard:\n%s", c.Rung, r)
			}
			if r.Messages < int64(c.Listeners)*4 || r.Bytes == 0 || r.ListenerSeconds < float64(c.Listeners) {
				t.Errorf("%s: %d pieces, %d bytes, %.0f listener-seconds", c.Rung, r.Messages, r.Bytes, r.ListenerSeconds)
			}
			if c.Rung != crowd.Cues && (r.Audio.Seconds == 0 || r.Audio.Differ > 0 || r.Audio.Faults > 0) {
				t.Errorf("%s: audio %+v", c.Rung, r.Audio)
			}
			if r.Late.Count == 0 || r.Late.P50 < 0 || r.Late.P50 > 10_000 || r.FirstAudio.Count != uint64(c.Listeners) {
				t.Errorf("%s: lateness %+v, first audio %+v", c.Rung, r.Late, r.FirstAudio)
			}
		})
	}
	wg.Wait()
}

// People leave and come back, some read slowly, packets are lost: all that is counted apart, and nobody fails.
func TestCrowdBehaves(t *testing.T) {
	url := node(t)
	var wg sync.WaitGroup
	run := func(c crowd.Config, check func(*crowd.Report) bool) {
		wg.Go(func() {
			c.URL, c.Arrive, c.Hold, c.Seed, c.Sample = url+"/e/demo", time.Second, 4*time.Second, 1, -1
			r, err := crowd.Run(t.Context(), c)
			if err != nil {
				t.Errorf("%s: %v", c.Rung, err)
				return
			}
			if r.Joined != int64(c.Listeners) || len(r.Lost) > 0 || r.Malformed > 0 || !check(r) {
				t.Errorf("%+v:\n%s", c, r)
			}
		})
	}
	run(crowd.Config{Rung: crowd.Push, Listeners: 40, Leave: time.Second, Return: 500 * time.Millisecond}, func(r *crowd.Report) bool {
		return r.Left > 20 && r.Rejoined > 10 && r.LostFrames == 0
	})
	run(crowd.Config{Rung: crowd.WebRTC, Listeners: 10, Leave: time.Second, Return: 500 * time.Millisecond}, func(r *crowd.Report) bool {
		return r.Left > 3 && r.Rejoined > 1
	})
	run(crowd.Config{Rung: crowd.Push, Listeners: 20, Slow: 1}, func(r *crowd.Report) bool {
		return r.Gaps == 0 && r.SlowGaps > 0
	})
	run(crowd.Config{Rung: crowd.WebRTC, Listeners: 6, Loss: .1}, func(r *crowd.Report) bool {
		return r.LossDropped > 20 && r.LostFrames > r.LossDropped/2 && r.Repaired == 0
	})
	run(crowd.Config{Rung: crowd.WebRTC, Listeners: 6, Loss: .1, RED: true}, func(r *crowd.Report) bool {
		return r.LossDropped > 20 && r.LostFrames < r.LossDropped/4 && r.Repaired > r.LossDropped/2
	})
	run(crowd.Config{Rung: crowd.WebRTC, Listeners: 6, Loss: .1, NACK: true}, func(r *crowd.Report) bool {
		return r.LossDropped > 20 && r.Repaired > r.LossDropped/4
	})
	wg.Wait()
}

// The same over TLS, to a certificate of the test's own.
func TestCrowdOverTLS(t *testing.T) {
	url, ca := tunnel(t, strings.TrimPrefix(node(t), "http://"))
	var wg sync.WaitGroup
	for _, c := range []crowd.Config{{Rung: crowd.Push, Listeners: 40}, {Rung: crowd.HLS, Listeners: 10}, {Rung: crowd.WebRTC, Listeners: 5}} {
		c.URL, c.CA, c.Arrive, c.Hold, c.Seed = url+"/e/demo", ca, time.Second, 5*time.Second, 1
		wg.Go(func() {
			r, err := crowd.Run(t.Context(), c)
			if err != nil {
				t.Errorf("%s: %v", c.Rung, err)
			} else if r.Joined != int64(c.Listeners) || len(r.Lost) > 0 || r.Malformed > 0 || r.LostFrames > 0 || r.Audio.Seconds == 0 || r.Audio.Differ > 0 {
				t.Errorf("%s:\n%s", c.Rung, r)
			}
		})
	}
	wg.Wait()
	r, err := crowd.Run(t.Context(), crowd.Config{URL: url + "/e/demo", Insecure: true, Listeners: 3, Hold: time.Second})
	if err != nil || r.Joined != 3 {
		t.Errorf("with --insecure: %v\n%s", err, r)
	}
	if _, err := crowd.Run(t.Context(), crowd.Config{URL: url + "/e/demo", Listeners: 3}); err == nil {
		t.Error("a certificate that nobody trusts was taken")
	}
}

// tunnel takes TLS off for a server that speaks none.
func tunnel(t *testing.T, to string) (url, ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				up, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer up.Close()
				var back sync.WaitGroup
				back.Go(func() {
					_, _ = io.Copy(c, up)
					_ = c.Close()
				})
				_, _ = io.Copy(up, c)
				_ = up.Close()
				back.Wait()
			})
		}
	})
	return "https://" + l.Addr().String(), ca
}
