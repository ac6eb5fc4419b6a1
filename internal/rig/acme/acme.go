// Package acme runs Pebble, Let's Encrypt's own small ACME authority, inside a test: it validates for real, on a port of the test's
// choice, and can be made to fail in the ways that authorities do.
package acme

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// Mood is how the authority behaves.
type Mood int32

// The moods.
const (
	Well    Mood = iota
	Gone         // connections are cut
	Failing      // 500
	Silent       // no answer, for as long as the client waits
	Raving       // 200, and nonsense
)

// Authority is an ACME server for which every name leads to 127.0.0.1.
type Authority struct {
	Directory string         // its URL
	CAFile    string         // the certificate of Directory's own server, in PEM
	Issued    *x509.CertPool // what clients of the certificates must trust
	mood      atomic.Int32
	asked     atomic.Int64
}

// Start runs one until the test ends. It validates TLS-ALPN-01 on a TCP port of 127.0.0.1, and its certificates are valid for so long.
func Start(t testing.TB, port int, validity time.Duration) *Authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	names := resolver(t)
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"default": {Description: "the test's", ValidityPeriod: uint64(validity.Seconds())},
	})
	front := wfe.New(quiet, store, va.New(quiet, 1, port, true, names, store), authority, []string{"pebble.example"}, true, false, 1, 1)
	a := &Authority{Issued: x509.NewCertPool()}
	a.Issued.AddCert(authority.GetRootCert(0).Cert)
	pebble := front.Handler()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		switch Mood(a.mood.Load()) {
		case Gone:
			panic(http.ErrAbortHandler)
		case Failing:
			http.Error(w, "out of order", http.StatusInternalServerError)
		case Silent:
			<-r.Context().Done()
		case Raving:
			_, _ = io.WriteString(w, `{"newNonce": [`)
		default:
			pebble.ServeHTTP(w, r)
		}
	}))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	a.Directory = server.URL + wfe.DirectoryPath
	a.CAFile = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(a.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// Be changes how the authority behaves from now on.
func (a *Authority) Be(m Mood) { a.mood.Store(int32(m)) }

// Asked is how many requests came.
func (a *Authority) Asked() int64 { return a.asked.Load() }

// FreePort gives a TCP port of 127.0.0.1 that was free a moment ago.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// resolver answers that every name is 127.0.0.1, and gives its address.
func resolver(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // Pebble asks over TCP
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		for _, question := range q.Question {
			if question.Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1),
				})
			}
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.ActivateAndServe()
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if s.ShutdownContext(ctx) != nil { // it had not begun
			_ = l.Close()
		}
		<-done
	})
	return l.Addr().String()
}
