// Package certs gets a node the certificate for its own domain, by ACME (RFC 8555), and keeps it fresh. The one challenge used is
// TLS-ALPN-01 (RFC 8737): it is answered on the port that serves HTTPS, so no other has to be open. CertMagic does the protocol and the
// renewing; this package says what it is to do, tells operators how it goes, and decides what a client gets while there is no certificate.
//
// Whatever ACME does, what is at hand is served: certificates lie on disk, are loaded first, and stay in use until there is a better one.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/idna"
)

const (
	// firstRetry and lastRetry bound the wait after a failed attempt to get a first certificate. It doubles in between. Authorities allow
	// a handful of failures an hour and account, so it must not stay short.
	firstRetry = time.Minute
	lastRetry  = 2 * time.Hour

	quiet = time.Minute // at least, between two lines in the log about clients that got no certificate
)

// Config is what a keeper is made of.
type Config struct {
	Domains   []string       // names as CheckDomain gives them; the first is for clients that name none
	Dir       string         // folder of certificates, keys and the account; created if missing
	Directory string         // URL of the authority's directory; empty: Let's Encrypt
	Email     string         // for the authority's warnings; may be empty
	Roots     *x509.CertPool // trusted for the directory's own certificate; nil: the system's
	Listen    *net.TCPAddr   // where HTTPS listens, and challenges are answered

	Retry      time.Duration // first wait after a failure; 0: a minute
	Check      time.Duration // between looks at whether it is time to renew; 0: ten minutes
	Log        *slog.Logger
	Registerer prometheus.Registerer // may be nil
}

// Keeper keeps the certificates of one node.
type Keeper struct {
	cfg     Config
	names   map[string]bool
	cache   *certmagic.Cache
	magic   *certmagic.Config
	stopgap *tls.Certificate
	metrics metrics
	closed  sync.Once

	told atomic.Int64 // when the log last spoke of a client without a certificate, in Unix nanoseconds

	mu     sync.Mutex
	states map[string]*state
}

// state is how it goes with one name's certificate.
type state struct {
	failed   error // of the last attempt; nil: it went well, or there was none
	failedAt time.Time
	nextAt   time.Time // of the next attempt to get a first one; zero: CertMagic decides
}

// CheckDomain gives a domain as certificates have it: in small letters, and letters beyond ASCII as xn--. It fails for what cannot be
// validated by TLS-ALPN: addresses, wildcards, names without a dot.
func CheckDomain(name string) (string, error) {
	ascii, err := idna.Lookup.ToASCII(strings.TrimSpace(name))
	switch {
	case strings.ContainsAny(name, ":/"):
		return "", errors.New("want a name alone, such as talk.example.org, without https:// and without a port")
	case strings.Contains(name, "*"):
		return "", errors.New("a wildcard needs a challenge by DNS, which is not there; name each domain")
	case err != nil, !strings.Contains(ascii, "."), slices.Contains(strings.Split(ascii, "."), ""), len(ascii) > 253:
		return "", errors.New("want a full domain name, such as talk.example.org")
	}
	if _, err := netip.ParseAddr(ascii); err == nil {
		return "", errors.New("an address gets no certificate here; want a domain name, such as talk.example.org")
	}
	return ascii, nil
}

// New makes a keeper. Nothing is asked of the authority before Run. Close ends it, also if Run never ran.
func New(cfg Config) (*Keeper, error) {
	if len(cfg.Domains) == 0 || cfg.Dir == "" || cfg.Listen == nil || cfg.Log == nil {
		return nil, errors.New("certs: the configuration lacks one of Domains, Dir, Listen, Log")
	}
	if cfg.Retry <= 0 {
		cfg.Retry = firstRetry
	}
	k := &Keeper{cfg: cfg, names: map[string]bool{}, states: map[string]*state{}, metrics: newMetrics()}
	for _, d := range cfg.Domains {
		k.names[d], k.states[d] = true, &state{}
	}
	var err error
	if k.stopgap, err = selfSigned(cfg.Domains[0]); err != nil {
		return nil, fmt.Errorf("certs: make a stopgap: %w", err)
	}
	logger := zapTo(cfg.Log)
	k.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return k.magic, nil },
		RenewCheckInterval: cfg.Check,
		Logger:             logger,
	})
	k.magic = certmagic.New(k.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: cfg.Dir}, OnEvent: k.event, DefaultServerName: cfg.Domains[0], Logger: logger,
	})
	host := ""
	if !cfg.Listen.IP.IsUnspecified() {
		host = cfg.Listen.IP.String()
	}
	k.magic.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(k.magic, certmagic.ACMEIssuer{
		CA: cfg.Directory, Email: cfg.Email, Agreed: true, TrustedRoots: cfg.Roots,
		DisableHTTPChallenge: true, ListenHost: host, AltTLSALPNPort: cfg.Listen.Port, Logger: logger,
	})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(collector{k}); err != nil {
			k.Close()
			return nil, fmt.Errorf("certs: %w", err)
		}
	}
	return k, nil
}

// TLS gives what to listen with: TLS 1.2 and later, HTTP/2 and 1.1, and the authority's challenges.
func (k *Keeper) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: k.certificate,
		NextProtos:     []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
	}
}

// Run loads what is on disk, and gets what is missing: it asks until it has it, or ctx ends. From then on CertMagic renews by itself, and asks
// again where that fails. The HTTPS port must be served meanwhile: the authority comes there to look.
func (k *Keeper) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, d := range k.cfg.Domains {
		all.Go(func() { k.obtain(ctx, d) })
	}
	all.Wait()
	<-ctx.Done()
}

func (k *Keeper) obtain(ctx context.Context, domain string) {
	for wait := k.cfg.Retry; ; wait = min(2*wait, lastRetry) {
		err := k.magic.ManageSync(ctx, []string{domain})
		if ctx.Err() != nil {
			return
		}
		if !k.expires(domain).IsZero() { // there is one, new or old, and it is CertMagic's to renew
			if err == nil {
				k.cfg.Log.Info("certificate", "domain", domain, "expires", k.expires(domain))
			}
			return
		}
		next := time.Now().Add(wait)
		k.mu.Lock()
		k.states[domain].nextAt = next
		if k.states[domain].failed == nil { // it failed before the authority was asked: the disk
			k.states[domain].failed, k.states[domain].failedAt = err, time.Now()
		}
		k.mu.Unlock()
		k.cfg.Log.Error("there is no certificate, so browsers cannot connect: the domain must lead to this machine, and its TCP port 443 to --listen",
			"domain", domain, "err", err, "next_attempt", next)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Close ends the renewing.
func (k *Keeper) Close() { k.closed.Do(k.cache.Stop) }

// event is CertMagic's word on how an attempt went.
func (k *Keeper) event(_ context.Context, what string, data map[string]any) error {
	domain, _ := data["identifier"].(string)
	renewal, _ := data["renewal"].(bool)
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.states[domain]
	if s == nil {
		return nil
	}
	switch what {
	case "cert_obtained":
		*s = state{}
		if renewal {
			k.metrics.renewed.Add(1)
			k.cfg.Log.Info("certificate renewed", "domain", domain)
		} else {
			k.metrics.obtained.Add(1)
		}
	case "cert_failed":
		err, _ := data["error"].(error)
		if err == nil {
			err = errors.New("unknown")
		}
		s.failed, s.failedAt = err, time.Now()
		k.metrics.failed.Add(1)
		if renewal {
			k.cfg.Log.Error("the certificate could not be renewed, and stays in use; it is tried again", "domain", domain, "err", err)
		}
	}
	return nil
}

// certificate chooses what a client gets.
func (k *Keeper) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	if k.names[name] {
		cert, err := k.magic.GetCertificate(hello)
		if err == nil {
			return cert, nil
		}
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol {
			return nil, fmt.Errorf("no challenge is open for %s: %w", name, err)
		}
		return nil, k.without(name)
	}
	if name != "" && name != "localhost" {
		k.metrics.unknown.Add(1)
		return nil, fmt.Errorf("%s is not a name of this server", strconv.Quote(clip(name)))
	}
	// Who names none, as all do that connect by address, is the operator's own tools more often than not. They can ask
	// with verification off, and are then told by /readyz what is the matter.
	if cert, err := k.magic.GetCertificate(&tls.ClientHelloInfo{
		ServerName: k.cfg.Domains[0], SupportedProtos: []string{"http/1.1", "h2"}, CipherSuites: hello.CipherSuites, SupportedVersions: hello.SupportedVersions,
		SignatureSchemes: hello.SignatureSchemes, SupportedCurves: hello.SupportedCurves, SupportedPoints: hello.SupportedPoints, Conn: hello.Conn,
	}); err == nil {
		return cert, nil
	}
	return k.stopgap, nil
}

// without counts a client that there is no certificate for, and says why in the log now and then.
func (k *Keeper) without(name string) error {
	k.metrics.without.Add(1)
	err := k.missing(name)
	now := time.Now().UnixNano()
	if last := k.told.Load(); now-last >= int64(quiet) && k.told.CompareAndSwap(last, now) {
		k.cfg.Log.Warn("a client's TLS handshake fails", "why", err.Error(), "so_far", k.metrics.without.Load())
	}
	return err
}

func (k *Keeper) missing(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.states[name]
	if s.failed == nil {
		return fmt.Errorf("there is no certificate for %s yet: it is being asked for", name)
	}
	text := fmt.Sprintf("there is no certificate for %s: the attempt at %s failed, and the log says why", name, s.failedAt.UTC().Format(time.TimeOnly))
	if !s.nextAt.IsZero() {
		text += "; the next is at " + s.nextAt.UTC().Format(time.TimeOnly)
	}
	return errors.New(text + " (UTC)")
}

// Ready is nil if each domain has a certificate that is valid now, else it says which has none and how it stands. Nothing in it is secret.
func (k *Keeper) Ready() error {
	for _, d := range k.cfg.Domains {
		switch at := k.expires(d); {
		case at.IsZero():
			return k.missing(d)
		case time.Now().After(at):
			return fmt.Errorf("the certificate for %s expired at %s and could not be renewed; the log says why", d, at.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// Notes says of each certificate that could not be renewed until when it serves.
func (k *Keeper) Notes() (notes []string) {
	for _, d := range k.cfg.Domains {
		k.mu.Lock()
		failed := k.states[d].failed != nil
		k.mu.Unlock()
		if at := k.expires(d); failed && !at.IsZero() {
			notes = append(notes, fmt.Sprintf("the certificate for %s could not be renewed, and serves until %s", d, at.UTC().Format(time.RFC3339)))
		}
	}
	return notes
}

// expires is until when a domain's certificate is valid; zero if there is none.
func (k *Keeper) expires(domain string) (at time.Time) {
	for _, c := range k.cache.AllMatchingCertificates(domain) {
		if c.Leaf != nil && c.Leaf.NotAfter.After(at) {
			at = c.Leaf.NotAfter
		}
	}
	return at
}

func clip(s string) string { return s[:min(len(s), 100)] }
