package sweep_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/fan/sweep"
	"earshot/internal/observatory"
)

// kind is a way in which a listener is served; the same tests hold for all.
type kind struct {
	name       string
	secure     bool
	goroutines bool
}

var kinds = []kind{{"plain", false, false}, {"tls", true, false}, {"goroutine", false, true}, {"goroutine over tls", true, true}}

// stand is an engine behind a listening socket, and one stream.
type stand struct {
	t        testing.TB
	engine   *sweep.Engine
	stream   *sweep.Stream
	tally    sweep.Tally
	audience *observatory.Audience
	addr     string
	client   *tls.Config // nil: plain
	accepted chan net.Conn
	frame    uint64
}

func newStand(t testing.TB, k kind, change ...func(*sweep.Config, *sweep.StreamConfig)) *stand {
	t.Helper()
	s := &stand{t: t, audience: observatory.NewAudience(event.Count{}), accepted: make(chan net.Conn)}
	cfg := sweep.Config{Shards: 2, Goroutines: k.goroutines}
	scfg := sweep.StreamConfig{Tally: &s.tally, Audience: s.audience, Rung: observatory.Push}
	for _, c := range change {
		c(&cfg, &scfg)
	}
	var err error
	s.engine, err = sweep.New(cfg)
	must(t, err)
	s.stream = s.engine.NewStream(scfg)
	tcp, err := sweep.ListenTCP(context.Background(), "127.0.0.1:0")
	must(t, err)
	s.addr = tcp.Addr().String()
	var config *tls.Config
	if k.secure {
		config, s.client = certificate(t)
	}
	l := s.engine.Listen(tcp, config)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		defer close(s.accepted)
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			s.accepted <- c
		}
	})
	t.Cleanup(func() {
		s.stream.Close(nil)
		_ = l.Close()
		for range s.accepted {
		}
		accepting.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.engine.Close(ctx); err != nil {
			t.Error(err)
		}
		if n := s.tally.Listeners.Load(); n != 0 || s.engine.Listeners() != 0 {
			t.Errorf("%d listeners are counted after the end, %d places", n, s.engine.Listeners())
		}
	})
	return s
}

// join connects a listener that begins at the head and wants this cadence.
func (s *stand) join(head []byte, burst int, wish sweep.Cadence) (client net.Conn, first uint64) {
	s.t.Helper()
	client, server := s.connect()
	given, err := s.engine.Admit(wish, sweep.Own)
	must(s.t, err)
	next, _ := s.stream.Place(burst)
	s.engine.Take(server, nil, sweep.Join{Stream: s.stream, Next: next, Wish: wish, Given: given, Head: head})
	return client, next
}

func (s *stand) connect() (client, server net.Conn) {
	s.t.Helper()
	client, err := net.Dial("tcp", s.addr)
	must(s.t, err)
	if s.client != nil {
		tc := tls.Client(client, s.client)
		must(s.t, tc.Handshake())
		client = tc
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client, <-s.accepted
}

// append adds chunk n of a length.
func (s *stand) append(length int) {
	s.stream.Append(s.frame, encode(s.frame/10, length))
	s.frame += 10
}

// encode makes a chunk that can be checked: its number, its length, and bytes that follow from both.
func encode(n uint64, length int) []byte {
	if length == 0 {
		return nil
	}
	b := make([]byte, 12+length)
	binary.BigEndian.PutUint64(b, n)
	binary.BigEndian.PutUint32(b[8:], uint32(length))
	for i := range length {
		b[12+i] = byte(uint64(i)*7 + n*13 + 1)
	}
	return b
}

// decode reads one chunk and checks every byte.
func decode(r io.Reader) (n uint64, err error) {
	var h [12]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, err
	}
	n = binary.BigEndian.Uint64(h[:])
	length := int(binary.BigEndian.Uint32(h[8:]))
	if length > 1<<20 {
		return n, fmt.Errorf("not at the start of a chunk: %x", h)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return n, err
	}
	if want := encode(n, length); !bytes.Equal(b, want[12:]) {
		return n, fmt.Errorf("chunk %d is not what was appended", n)
	}
	return n, nil
}

func (s *stand) wait(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// certificate makes one for 127.0.0.1.
func certificate(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12},
		&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
