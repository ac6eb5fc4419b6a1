package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/certs"
	"earshot/internal/event"
)

// secure reads the certificate that was given: nil without one.
func secure(cfg Config) (*tls.Config, error) {
	if cfg.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("--cert %s, --key %s: want a certificate chain and its key in PEM: %w", cfg.Cert, cfg.Key, err)
	}
	return forParts(&tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"},
	}), nil
}

// forParts makes each write of a part one record, from the first: small records to begin with would only cost system calls.
func forParts(c *tls.Config) *tls.Config {
	c.DynamicRecordSizingDisabled = true
	return c
}

// authorityRoots reads what to trust when asking for certificates: nil for the system's.
func authorityRoots(cfg Config) (*x509.CertPool, error) {
	if cfg.ACMECA == "" {
		return nil, nil
	}
	b, err := os.ReadFile(cfg.ACMECA)
	if err != nil {
		return nil, fmt.Errorf("--acme-ca %s: want a file of certificates in PEM: %w", cfg.ACMECA, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("--acme-ca %s: there is no certificate in PEM in it", cfg.ACMECA)
	}
	return pool, nil
}

// keepCertificates prepares HTTPS for the node's domains, if it has any. They are asked for once it serves.
func (a *App) keepCertificates(roots *x509.CertPool, reg prometheus.Registerer) error {
	if len(a.cfg.Domains) == 0 {
		return nil
	}
	domains := make([]string, 0, len(a.cfg.Domains))
	for _, d := range a.cfg.Domains {
		name, err := certs.CheckDomain(d)
		if err != nil {
			return fmt.Errorf("--domain %q: %w", d, err)
		}
		domains = append(domains, name)
	}
	var err error
	a.acme, err = certs.New(certs.Config{
		Domains: domains, Dir: filepath.Join(a.cfg.Data, "certificates"), Directory: a.cfg.ACMEDirectory, Email: a.cfg.ACMEEmail, Roots: roots,
		Listen: a.http.Addr().(*net.TCPAddr), Log: a.log, Registerer: reg,
	})
	if err != nil {
		return err
	}
	a.tls = forParts(a.acme.TLS())
	return nil
}

// ready says whether this node takes listeners.
func (a *App) ready() error {
	if a.leaving.Load() {
		return event.Unavailable("The server is restarting.", nil)
	}
	if err := a.cluster.Ready(); err != nil {
		return err
	}
	if a.acme != nil {
		if err := a.acme.Ready(); err != nil {
			return event.Unavailable(sentence(err.Error()), nil)
		}
	}
	return nil
}

// notes says what an operator should know of a node that is ready.
func (a *App) notes() (notes []string) {
	if a.acme != nil {
		for _, n := range a.acme.Notes() {
			notes = append(notes, sentence(n))
		}
	}
	return notes
}

// sentence makes one of an error's text, which begins small and ends without a stop.
func sentence(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:] + "."
}
