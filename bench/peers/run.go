//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type runCmd struct {
	Only      []string      `help:"Only the rows whose name or server begins so: push, icecast, bare, webrtc, limit, pair, …" placeholder:"NAME"`
	Rounds    int           `default:"3" help:"How often the turn goes round (${default})."`
	Pairs     int           `default:"8" help:"How many pairs of push and bare loop on the same sockets (${default})."`
	Listeners int           `help:"In each row; 0: each row's own number."`
	Hold      time.Duration `help:"How long they stay; 0: each row's own time."`
	Figures   string        `default:"out/peers/figures.json" help:"Where the figures go (${default})."`
	Out       string        `default:"out/peers" help:"Folder of logs and configurations (${default})."`
	Earshot   string        `default:"bin/earshot" help:"The binary (${default})."`
	Crowd     string        `help:"The binary that listens; empty: the same." placeholder:"FILE"`
	Bare      string        `default:"out/peers/bin/bare" help:"The loops (${default})."`
}

// Run measures.
func (c *runCmd) Run(ctx context.Context) error {
	p, err := makeProgramme()
	if err != nil {
		return err
	}
	b := &bench{ctx: ctx, rest: map[string]float64{}}
	for from, to := range map[string]*string{c.Out: &b.out, c.Earshot: &b.earshot, c.Bare: &b.bare} {
		if *to, err = filepath.Abs(from); err != nil {
			return fmt.Errorf("path %q: %w", from, err)
		}
	}
	b.listener = b.earshot
	if c.Crowd != "" {
		b.listener = c.Crowd
	}
	b.bin = filepath.Join(b.out, "bin")
	if b.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	s := scale{only: c.Only, listeners: c.Listeners, hold: c.Hold}
	all, err := s.chosen()
	if err != nil {
		return err
	}
	f := newFigures(b, p, c.Rounds)
	for round := range c.Rounds {
		for i := range all {
			sc := &all[i]
			if sc.turns > 0 && round >= sc.turns {
				continue
			}
			begun := time.Now()
			m, err := sc.run(b, p, sc)
			if ctx.Err() != nil {
				return errors.Join(f.save(c.Figures), fmt.Errorf("interrupted: %w", ctx.Err()))
			}
			if err != nil {
				f.Missing[sc.name] = err.Error()
				fmt.Fprintf(os.Stderr, "%d %-18s %v\n", round+1, sc.name, err)
				continue
			}
			m.Case, m.Round = sc.name, round+1
			f.Samples = append(f.Samples, *m)
			fmt.Fprintf(os.Stderr, "%d %-18s n %6d  %7.1f µs  busy %.2f  join %7.1f µs  rss %7.2f KB  joined %d  gaps %d  first p99 %.0f ms  (%.0f s) %v %v %v\n", round+1, sc.name, m.Listeners,
				m.US, m.Busy, m.JoinUS, m.RSSKB, m.Joined, m.Gaps, m.FirstMS.P99, time.Since(begun).Seconds(), m.Failed, m.Cut, m.Limited)
			if err := f.save(c.Figures); err != nil {
				return err
			}
		}
	}
	for _, q := range pairs {
		if !s.wants(q.name) {
			continue
		}
		found, err := b.measurePair(q.name, q.n, q.cadence, q.tls, (c.Pairs+q.less)/(1+q.less))
		if err != nil {
			f.Missing[q.name] = err.Error()
			fmt.Fprintf(os.Stderr, "  %-18s %v\n", q.name, err)
			continue
		}
		f.Pairs = append(f.Pairs, found...)
		for _, p := range found {
			fmt.Fprintf(os.Stderr, "  %-18s engine %.1f, loop %.1f, in slots %.1f µs\n", q.name, p.Engine, p.Loop, p.Spread)
		}
	}
	if s.wants("limit") {
		if err := b.limits(p, f); err != nil {
			return err
		}
	}
	return f.save(c.Figures)
}

// certificate makes a key and a certificate that nobody trusts, for loopback.
func (b *bench) certificate() (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(b.out, "cert.pem"), filepath.Join(b.out, "key.pem")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("key: %w", err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		return "", "", fmt.Errorf("certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("key: %w", err)
	}
	write := func(path, kind string, der []byte) error {
		return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	if err := errorsOf(write(certFile, "CERTIFICATE", cert), write(keyFile, "PRIVATE KEY", secret)); err != nil {
		return "", "", fmt.Errorf("certificate: %w", err)
	}
	return certFile, keyFile, nil
}
