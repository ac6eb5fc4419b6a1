package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/certs"
	"earshot/internal/rig"
	"earshot/internal/rig/acme"
)

const domain = "talk.example.org"

// site is a keeper and the HTTPS server that it serves.
type site struct {
	t      *testing.T
	keeper *certs.Keeper
	reg    *prometheus.Registry
	addr   string
	log    *rig.Log
	stop   func()
}

func serve(t *testing.T, a *acme.Authority, port int, dir string) *site {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(a.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	s := &site{t: t, reg: prometheus.NewRegistry(), addr: l.Addr().String(), log: &rig.Log{}}
	s.keeper, err = certs.New(certs.Config{
		Domains: []string{domain}, Dir: dir, Directory: a.Directory, Email: "me@example.org", Roots: roots, Listen: l.Addr().(*net.TCPAddr),
		Retry: 50 * time.Millisecond, Check: 200 * time.Millisecond, Registerer: s.reg,
		Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{TLSConfig: s.keeper.TLS(), Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = server.Serve(tls.NewListener(l, server.TLSConfig)) })
	run.Go(func() { s.keeper.Run(ctx) })
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			cancel()
			s.keeper.Close()
			_ = server.Close()
			run.Wait()
		})
	}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the log:\n%s", s.log)
		}
	})
	return s
}

// shake connects as a client that asks for a name and trusts roots, or all with nil.
func (s *site) shake(name string, roots *x509.CertPool, protos ...string) (tls.ConnectionState, error) {
	d := &net.Dialer{Timeout: 5 * time.Second}
	c, err := tls.DialWithDialer(d, "tcp", s.addr, &tls.Config{ServerName: name, RootCAs: roots, InsecureSkipVerify: roots == nil, NextProtos: protos}) //nolint:gosec // the test's own
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	return c.ConnectionState(), nil
}

func await(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", limit, what)
		}
	}
}

// count reads a metric by its name and the value of its label.
func (s *site) count(name, label string) float64 {
	s.t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	s.t.Fatalf("there is no %s of %s", name, label)
	return 0
}

// A certificate is got, served over both versions of HTTP, and kept where only its owner reads it; names of others get none. At a second start
// it is served without the authority, which is gone.
func TestObtains(t *testing.T) {
	port, dir := acme.FreePort(t), t.TempDir()
	a := acme.Start(t, port, time.Hour)
	s := serve(t, a, port, dir)
	await(t, 30*time.Second, "a certificate", func() bool { return s.keeper.Ready() == nil })
	for _, proto := range []string{"h2", "http/1.1"} {
		state, err := s.shake(domain, a.Issued, proto)
		if err != nil || state.NegotiatedProtocol != proto {
			t.Errorf("%s: %q, %v", proto, state.NegotiatedProtocol, err)
		}
	}
	first, err := s.shake("TALK.example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.shake("other.example.org", nil); err == nil || s.count("earshot_certificate_refusals_total", "unknown_name") != 1 {
		t.Errorf("a name of others: %v", err)
	}
	if _, err := s.shake(domain, nil, "acme-tls/1"); err == nil {
		t.Error("a challenge that nobody set was answered")
	}
	if state, err := s.shake("", nil); err != nil || !state.PeerCertificates[0].Equal(first.PeerCertificates[0]) {
		t.Errorf("who names nothing gets another certificate, or %v", err)
	}
	if s.count("earshot_certificate_attempts_total", "obtained") != 1 || s.count("earshot_certificate_expires_timestamp_seconds", domain) != float64(first.PeerCertificates[0].NotAfter.Unix()) {
		t.Error("the metrics say otherwise")
	}
	if notes := s.keeper.Notes(); len(notes) != 0 {
		t.Error(notes)
	}
	keys := 0
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".key") {
			if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
			keys++
		}
		return nil
	})
	if keys < 2 { // the account's, and the certificate's
		t.Errorf("%d keys are kept", keys)
	}
	s.stop()

	a.Be(acme.Gone)
	s = serve(t, a, port, dir)
	await(t, 5*time.Second, "the certificate at a second start", func() bool { return s.keeper.Ready() == nil })
	again, err := s.shake(domain, a.Issued)
	if err != nil || !again.PeerCertificates[0].Equal(first.PeerCertificates[0]) {
		t.Errorf("the second start serves another, or %v", err)
	}
}

// However the authority fails, the node lives, says why nobody can connect, asks again, and serves as soon as it has a certificate.
func TestAuthorityFails(t *testing.T) {
	port := acme.FreePort(t)
	a := acme.Start(t, port, time.Hour)
	for _, mood := range []acme.Mood{acme.Gone, acme.Failing, acme.Raving} {
		a.Be(mood)
		s := serve(t, a, port, t.TempDir())
		await(t, 60*time.Second, "two failed attempts", func() bool {
			return strings.Count(s.log.String(), "there is no certificate, so browsers cannot connect") >= 2
		})
		if _, err := s.shake(domain, nil); err == nil {
			t.Errorf("%d: something was served for the domain", mood)
		}
		if s.count("earshot_certificate_refusals_total", "none") != 1 || s.count("earshot_certificate_attempts_total", "failed") < 1 ||
			s.count("earshot_certificate_expires_timestamp_seconds", domain) != 0 {
			t.Errorf("%d: the metrics say otherwise", mood)
		}
		if err := s.keeper.Ready(); err == nil || !strings.Contains(err.Error(), "there is no certificate for "+domain+": the attempt at ") || !strings.Contains(err.Error(), "the next is at") {
			t.Errorf("%d: %v", mood, err)
		}
		if !strings.Contains(s.log.String(), `msg="a client's TLS handshake fails"`) {
			t.Errorf("%d: the log does not say why handshakes fail", mood)
		}
		if state, err := s.shake("", nil); err != nil || state.PeerCertificates[0].Subject.CommonName != "Stopgap" {
			t.Errorf("%d: by address there is no stopgap: %v", mood, err)
		}
		if mood == acme.Raving {
			a.Be(acme.Well)
			await(t, 60*time.Second, "a certificate after all", func() bool { return s.keeper.Ready() == nil })
			if _, err := s.shake(domain, a.Issued); err != nil {
				t.Error(err)
			}
		}
		s.stop()
	}
}

// An authority that takes requests and says nothing holds up neither clients nor the end.
func TestAuthoritySilent(t *testing.T) {
	port := acme.FreePort(t)
	a := acme.Start(t, port, time.Hour)
	a.Be(acme.Silent)
	s := serve(t, a, port, t.TempDir())
	await(t, 10*time.Second, "a request", func() bool { return a.Asked() > 0 })
	if _, err := s.shake(domain, nil); err == nil {
		t.Error("something was served for the domain")
	}
	if err := s.keeper.Ready(); err == nil || !strings.Contains(err.Error(), "it is being asked for") {
		t.Error(err)
	}
	began := time.Now()
	s.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// A certificate is renewed before it expires. Where that fails it stays in use, also beyond its time, and the operator is told.
func TestRenews(t *testing.T) {
	port, dir := acme.FreePort(t), t.TempDir()
	a := acme.Start(t, port, 12*time.Second)
	s := serve(t, a, port, dir)
	await(t, 30*time.Second, "a certificate", func() bool { return s.keeper.Ready() == nil })
	first, err := s.shake(domain, a.Issued)
	if err != nil {
		t.Fatal(err)
	}
	var second tls.ConnectionState
	await(t, 30*time.Second, "another certificate", func() bool {
		second, err = s.shake(domain, nil)
		return err == nil && !second.PeerCertificates[0].Equal(first.PeerCertificates[0])
	})
	if s.count("earshot_certificate_attempts_total", "renewed") < 1 {
		t.Error("the metrics say otherwise")
	}
	a.Be(acme.Failing)
	await(t, 30*time.Second, "a renewal that fails", func() bool { return len(s.keeper.Notes()) == 1 })
	if !strings.Contains(s.log.String(), "the certificate could not be renewed, and stays in use") || s.count("earshot_certificate_attempts_total", "failed") < 1 {
		t.Error("the log or the metrics say nothing of it")
	}
	await(t, 30*time.Second, "the end of its time", func() bool { err := s.keeper.Ready(); return err != nil && strings.Contains(err.Error(), "expired at") })
	if _, err := s.shake(domain, nil); err != nil {
		t.Errorf("it is not served any more: %v", err)
	}
	s.stop()

	s = serve(t, a, port, dir) // nothing else is at hand now either
	await(t, 10*time.Second, "the old certificate", func() bool { _, err := s.shake(domain, nil); return err == nil })
	if err := s.keeper.Ready(); err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Error(err)
	}
}

func TestCheckDomain(t *testing.T) {
	for name, want := range map[string]string{
		"talk.example.org": "talk.example.org", "TALK.Example.org": "talk.example.org", " talk.example.org ": "talk.example.org",
		"gespräch.example": "xn--gesprch-9wa.example", "xn--gesprch-9wa.example": "xn--gesprch-9wa.example",
		"": "", "org": "", ".": "", "talk..org": "", "talk.example.org.": "", "-a.example": "", "a b.example": "", "*.example.org": "",
		"https://talk.example.org": "", "talk.example.org:443": "", "192.0.2.1": "", "::1": "", strings.Repeat("a.", 150) + "org": "",
	} {
		if got, err := certs.CheckDomain(name); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}
