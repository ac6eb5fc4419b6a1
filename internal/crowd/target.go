package crowd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// consentPath is where a server says that it consents to a crowd.
const consentPath = "/.well-known/earshot-crowd"

// target is where a crowd goes: an address that was resolved once, and to which alone anything is ever sent.
type target struct {
	TLS      bool           `json:"tls"`
	Host     string         `json:"host"` // of the Host header, with its port where that is not the scheme's own
	Name     string         `json:"name"` // to be found in its certificate
	Addr     netip.AddrPort `json:"addr"`
	Path     string         `json:"path"` // with the query
	Earshot  bool           `json:"earshot"`
	Slug     string         `json:"slug,omitempty"`
	Origin   time.Time      `json:"origin"` // of the event's timeline; zero where it is not known
	CA       []byte         `json:"ca,omitempty"`
	Insecure bool           `json:"insecure,omitempty"`
}

// reach resolves an address, once.
func reach(ctx context.Context, cfg *Config, address string) (*target, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("--url %q: %w", address, err)
	}
	t := &target{TLS: u.Scheme == "https", Host: u.Host, Name: u.Hostname(), Path: u.RequestURI(), Insecure: cfg.Insecure}
	port := u.Port()
	if port == "" {
		port = map[bool]string{false: "80", true: "443"}[t.TLS]
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", t.Name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", t.Name, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("find %s: it has no address", t.Name)
	}
	addr := addrs[0].Unmap()
	for _, a := range addrs { // localhost is ::1 too, and there a listener has but one address to come from
		if a = a.Unmap(); a.Is4() {
			addr = a
			break
		}
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, fmt.Errorf("--url %q: %w", address, err)
	}
	t.Addr = netip.AddrPortFrom(addr, uint16(n))
	if path := u.Path; strings.HasPrefix(path, "/e/") && u.RawQuery == "" {
		slug := strings.TrimSuffix(strings.TrimPrefix(path, "/e/"), "/")
		if slug != "" && !strings.Contains(slug, "/") {
			t.Earshot, t.Slug = true, slug
		}
	}
	if cfg.CA != "" {
		if t.CA, err = os.ReadFile(cfg.CA); err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(t.CA) {
			return nil, fmt.Errorf("--ca %s: there is no certificate in PEM form", cfg.CA)
		}
	}
	if t.Insecure && !t.loopback() {
		return nil, errors.New("--insecure is for loopback addresses; name the certificate to trust with --ca")
	}
	if !t.Earshot && (cfg.Rung == Push || cfg.Rung == MP4 || cfg.Rung == Cues) {
		return nil, fmt.Errorf("--rung %s is spoken by Earshot alone: name an event, such as http://127.0.0.1:8080/e/demo", cfg.Rung)
	}
	return t, nil
}

func (t *target) loopback() bool { return t.Addr.Addr().IsLoopback() }

func (t *target) tlsConfig() *tls.Config {
	c := &tls.Config{ServerName: t.Name, InsecureSkipVerify: t.Insecure, NextProtos: []string{"http/1.1"}}
	if len(t.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM(t.CA)
		c.RootCAs = pool
	}
	return c
}

var errRedirect = errors.New("the server redirects, which a crowd never follows")

// client is for the few requests that are not the listeners' own. It reaches nothing but the target, and follows no redirect.
func (t *target) client() *http.Client {
	addr := t.Addr.String()
	return &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, network, addr)
			},
			TLSClientConfig: t.tlsConfig(),
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
	}
}

func (t *target) url(path string) string {
	if t.TLS {
		return "https://" + t.Host + path
	}
	return "http://" + t.Host + path
}

// get reads a small answer; what is not 200 is an error.
func (t *target) get(ctx context.Context, c *http.Client, path, token string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url(path), nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %w", path, statusError(resp.StatusCode))
	}
	return b, nil
}

// statusError is an HTTP status that is not the one that was hoped for.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("%d %s", int(s), http.StatusText(int(s))) }

// consent asks the server whether so many may come. On a loopback address nobody need be asked; anywhere else a crowd is an
// attack unless the operator says otherwise, and there is no flag to go without.
func (t *target) consent(ctx context.Context, c *http.Client, token string, listeners int) error {
	if t.loopback() {
		return nil
	}
	if token == "" {
		return fmt.Errorf("%s is not a loopback address: a crowd goes there only with --token, which its operator makes "+
			"(POST /api/v1/crowd-tokens)", t.Addr.Addr())
	}
	if !t.TLS && strings.HasPrefix(token, "eo_") {
		return errors.New("--token: the operator's own key is sent over https alone; over http use a crowd token")
	}
	b, err := t.get(ctx, c, consentPath, token)
	if err != nil {
		return fmt.Errorf("the server does not consent: %w", err)
	}
	return consents(b, listeners)
}

// consents judges the answer at consentPath.
func consents(answer []byte, listeners int) error {
	var yes struct {
		Listeners *int `json:"listeners"`
	}
	if err := json.Unmarshal(answer, &yes); err != nil || yes.Listeners == nil {
		return errors.New("the server does not consent: its answer at " + consentPath + " is not {\"listeners\": N}")
	}
	if *yes.Listeners < listeners {
		return fmt.Errorf("the server consents to %d listeners, not to %d", *yes.Listeners, listeners)
	}
	return nil
}

// ask makes a target of an address: it has consented, and it is known when its timeline began.
func ask(ctx context.Context, cfg *Config, address string) (*target, error) {
	t, err := reach(ctx, cfg, address)
	if err != nil {
		return nil, err
	}
	client := t.client()
	defer client.CloseIdleConnections()
	if err := t.consent(ctx, client, cfg.Token, cfg.Listeners); err != nil {
		return nil, err
	}
	return t, t.event(ctx, client)
}

// event reads when the timeline of the event began.
func (t *target) event(ctx context.Context, c *http.Client) error {
	if !t.Earshot {
		return nil
	}
	b, err := t.get(ctx, c, "/api/v1/events/"+t.Slug, "")
	switch status, _ := errors.AsType[statusError](err); {
	case status == http.StatusNotFound:
		return fmt.Errorf("%s knows no event %q", t.Host, t.Slug)
	case err != nil:
		return fmt.Errorf("read the event: %w", advise(err))
	}
	var e struct {
		Phase  string    `json:"phase"`
		Origin time.Time `json:"origin"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	switch e.Phase {
	case "ended", "cancelled":
		return fmt.Errorf("the event %q is over: there is nothing to listen to", t.Slug)
	case "scheduled":
		return fmt.Errorf("the event %q has not opened its doors yet", t.Slug)
	}
	t.Origin = e.Origin
	return nil
}

// advise adds what to do about an error that is not the server's word.
func advise(err error) error {
	switch _, strange := errors.AsType[*tls.CertificateVerificationError](err); {
	case strange:
		return fmt.Errorf("%w (name the certificate to trust with --ca; on loopback --insecure trusts any)", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nothing listens there: is the server running, and the port right?)", err)
	}
	return err
}
