package app_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"earshot/internal/app"
	"earshot/internal/rig/acme"
)

// A node gets the certificate for its domain by itself, on the port on which it serves, and serves pages and sound over it. At a second start,
// with the authority gone, it serves what it has.
func TestDomain(t *testing.T) {
	port, dir := acme.FreePort(t), t.TempDir()
	authority := acme.Start(t, port, 90*24*time.Hour)
	change := func(c *app.Config) {
		c.Listen = fmt.Sprintf("127.0.0.1:%d", port)
		c.Domains, c.ACMEDirectory, c.ACMECA, c.ACMEEmail = []string{"talk.example.org"}, authority.Directory, authority.CAFile, "me@example.org"
	}
	ask := func(two bool, path string) (*http.Response, error) {
		transport := &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			},
			TLSClientConfig: &tls.Config{RootCAs: authority.Issued}, ForceAttemptHTTP2: two, DisableKeepAlives: true,
		}
		return (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("https://talk.example.org" + path)
	}
	for run := range 2 {
		n := start(t, dir, change)
		await(t, 30*time.Second, "a page over HTTPS", func() bool {
			r, err := ask(false, "/readyz")
			if err != nil {
				return false
			}
			defer r.Body.Close()
			return r.StatusCode == 200
		})
		for _, two := range []bool{true, false} {
			r, err := ask(two, "/")
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r.Body)
			_ = r.Body.Close()
			if err != nil || r.StatusCode != 200 || (r.ProtoMajor == 2) != two || !strings.Contains(string(b), "<title>") {
				t.Errorf("run %d: %s %d, %v", run, r.Proto, r.StatusCode, err)
			}
		}
		r, err := ask(true, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if !strings.Contains(string(b), `earshot_certificate_expires_timestamp_seconds{domain="talk.example.org"} `) {
			t.Errorf("run %d: the metrics say nothing of the certificate", run)
		}
		n.stop()
		authority.Be(acme.Gone)
	}
	if _, err := os.Stat(filepath.Join(dir, "certificates")); err != nil {
		t.Error(err)
	}
}

// Before there is a certificate a node is not ready, and says so to who asks by address. What an operator got wrong is said before it listens.
func TestDomainWithoutCertificate(t *testing.T) {
	port := acme.FreePort(t)
	authority := acme.Start(t, port, time.Hour)
	authority.Be(acme.Gone)
	n := start(t, t.TempDir(), func(c *app.Config) {
		c.Listen = fmt.Sprintf("127.0.0.1:%d", port)
		c.Domains, c.ACMEDirectory, c.ACMECA = []string{"talk.example.org"}, authority.Directory, authority.CAFile
	})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // what the test is about
	await(t, 30*time.Second, "a failed attempt in /readyz", func() bool {
		r, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/readyz", port))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode == 503 && strings.Contains(string(b), "There is no certificate for talk.example.org: the attempt at ")
	})
	n.stop()

	for _, c := range []struct{ file, says string }{{"/nowhere.pem", "--acme-ca /nowhere.pem: want a file"}, {"config_test.go", "--acme-ca config_test.go: there is no certificate"}} {
		cfg := config(t.TempDir(), "", discard)
		cfg.Domains, cfg.ACMECA = []string{"talk.example.org"}, c.file
		if _, err := app.New(t.Context(), cfg); err == nil || !strings.Contains(errors.Join(err).Error(), c.says) {
			t.Errorf("%s: %v", c.file, err)
		}
	}
}
