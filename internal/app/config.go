package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"

	"earshot/internal/certs"
	"earshot/internal/cluster"
	"earshot/internal/radio"
)

// Config is what an operator says about a node. All of it is judged before anything listens.
type Config struct {
	// Listen is the TCP address of HTTP: host:port. Browsers give a microphone only to pages from localhost or over HTTPS, so
	// an address that others reach needs Cert and Key, or a proxy that speaks HTTPS in front.
	Listen string

	// Cert and Key are PEM files of a certificate chain and its key. With them Listen speaks HTTPS: TLS 1.2 and later, HTTP/2 and 1.1.
	Cert, Key string

	// Domains are names that lead to this node: it gets their certificates by itself, by ACME, and Listen speaks HTTPS. The authority
	// connects to TCP port 443 of each, which must come to Listen. Naming one is agreeing to the authority's terms. Not beside Cert.
	Domains []string

	// ACMEDirectory is the URL of the authority; empty: Let's Encrypt. ACMEEmail is where it writes to when something is wrong, and may be
	// empty. ACMECA is a PEM file of certificates to trust when asking a private authority, in place of the system's.
	ACMEDirectory, ACMEEmail, ACMECA string

	// UDP is the address, host:port, of all WebRTC media. The same port number is taken over TCP as a fallback.
	UDP string

	// Advertise lists the addresses that ICE candidates name, where they differ from the one in UDP: behind a NAT, the public
	// one. Empty: the address in UDP, or all interfaces' addresses if that is unspecified.
	Advertise []netip.Addr

	// Data is the folder of everything that is kept. It is created if missing, and belongs to one process at a time.
	Data string

	// NATS is the URL of a NATS server (v2.11 or newer, with JetStream) that this node shares with others: nats://user:password@host:4222,
	// several of a cluster's separated by commas. Empty: the store is embedded, and the node is alone. What is acknowledged is as safe
	// as that server makes it. Events of a node that was alone before do not move there.
	NATS string

	// NATSCreds names a file of NATS credentials; empty: what the URL says.
	NATSCreds string

	// NATSReplicas is how many copies the server keeps: 1, 3 or 5; 0 is three where it can, else one. It matters only to the node
	// that finds the buckets missing.
	NATSReplicas int

	// Roles say what the node does for an event: RoleStage, RoleEdge or both. Empty is both. Without NATS it must be both.
	Roles []Role

	// Public is the URL at which people reach this node, such as https://voice.example.org. Empty: the first of Domains; without one, links name the host that was asked
	// for, and other nodes name the address in Listen, if that is one.
	Public string

	// FFmpeg is the name or path of the program that makes AAC and MP3. Empty: "ffmpeg", where it is on the PATH; without it these addresses
	// say so, and all else works.
	FFmpeg string

	// TrustedProxies are the networks of the proxies in front of Listen, whose X-Forwarded-For, -Proto and -Host are believed. From all
	// others these headers are ignored. Whoever can connect from one of these networks can claim any address.
	TrustedProxies []netip.Prefix

	// Demo opens an event with two synthetic voices and prints a link with which anybody on this machine hosts it. Refused
	// unless Listen is a loopback address.
	Demo bool

	// Version is the program's, as it shows in the API's document, in the data folder and in backups. It may be empty.
	Version string

	// Log receives changes of state. Secrets never reach it.
	Log *slog.Logger
}

// Validate answers the first thing that cannot work, naming the setting and what is allowed.
func (c Config) Validate() error {
	host, err := checkAddress("--listen", c.Listen)
	if err != nil {
		return err
	}
	if _, err := checkAddress("--udp", c.UDP); err != nil {
		return err
	}
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("--cert and --key belong together: name the PEM file of the certificate and that of its key")
	}
	if err := c.checkDomains(); err != nil {
		return err
	}
	if c.Data == "" {
		return errors.New("--data is empty: name a folder that this process may write, such as ./data")
	}
	for _, a := range c.Advertise {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("--advertise %s: browsers cannot send there; name the address at which they reach this machine", a)
		}
	}
	for _, p := range c.TrustedProxies {
		switch {
		case p.Bits() == 0:
			return fmt.Errorf("--trusted-proxies %s: that would let everybody claim any address; name the network of your proxies, such as 10.0.0.0/8", p)
		case p != p.Masked():
			return fmt.Errorf("--trusted-proxies %s: want a network, such as %s, or one address without a slash", p, p.Masked())
		}
	}
	if err := c.checkNodes(); err != nil {
		return err
	}
	if c.FFmpeg != "" {
		if _, err := radio.Find(c.FFmpeg).For(radio.AAC); err != nil {
			return fmt.Errorf("--ffmpeg %s: want the path of an ffmpeg that has the encoder aac, or leave it out: %w", c.FFmpeg, err)
		}
	}
	if c.Demo && !loopback(host) {
		return fmt.Errorf("--demo with --listen %s: the demo prints a host link and belongs to this machine alone; "+
			"listen on 127.0.0.1 or leave --demo out", c.Listen)
	}
	return nil
}

// Role is what a node does for an event.
type Role string

// The roles. One node has an event's stage; any number serve its listeners.
const (
	RoleStage Role = "stage"
	RoleEdge  Role = "edge"
)

// is says whether the node has a role.
func (c Config) is(r Role) bool { return len(c.Roles) == 0 || slices.Contains(c.Roles, r) }

func (c Config) checkDomains() error {
	if len(c.Domains) == 0 {
		if c.ACMEDirectory != "" || c.ACMEEmail != "" || c.ACMECA != "" {
			return errors.New("--acme-directory, --acme-email and --acme-ca say how certificates are got for --domain, which is missing")
		}
		return nil
	}
	if c.Cert != "" {
		return errors.New("--domain and --cert exclude each other: either the certificate is got by itself, or it is given")
	}
	for _, d := range c.Domains {
		if _, err := certs.CheckDomain(d); err != nil {
			return fmt.Errorf("--domain %q: %w", d, err)
		}
	}
	if c.ACMEDirectory != "" {
		if u, err := url.Parse(c.ACMEDirectory); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return fmt.Errorf("--acme-directory %q: want the https:// address of an ACME directory", c.ACMEDirectory)
		}
	}
	if c.ACMEEmail != "" {
		if a, err := mail.ParseAddress(c.ACMEEmail); err != nil || a.Address != c.ACMEEmail {
			return fmt.Errorf("--acme-email %q: want an address alone, such as you@example.org", c.ACMEEmail)
		}
	}
	return nil
}

func (c Config) checkNodes() error {
	for _, r := range c.Roles {
		if r != RoleStage && r != RoleEdge {
			return fmt.Errorf("--node-roles %q: want stage, edge, or stage,edge", r)
		}
	}
	if c.Public != "" {
		u, err := url.Parse(c.Public)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
			return fmt.Errorf("--public %q: want http:// or https:// and a host, without a slash at the end", c.Public)
		}
	}
	if c.NATS == "" {
		if !c.is(RoleStage) || !c.is(RoleEdge) {
			return errors.New("--node-roles: a node alone needs both roles; name the NATS server that it shares with others by --nats")
		}
		if c.NATSCreds != "" || c.NATSReplicas != 0 {
			return errors.New("--nats-creds and --nats-replicas say something about --nats, which is missing")
		}
		return nil
	}
	if c.Demo && !c.is(RoleStage) {
		return errors.New("--demo needs the role stage: start the demo on a node that has it")
	}
	if err := c.join("").Check(); err != nil {
		return fmt.Errorf("--nats: %w", err)
	}
	return nil
}

// join says how the cluster is to be joined, nil for alone.
func (c Config) join(address string) *cluster.Join {
	if c.NATS == "" {
		return nil
	}
	return &cluster.Join{URL: c.NATS, Creds: c.NATSCreds, Replicas: c.NATSReplicas, Stage: c.is(RoleStage), Address: address}
}

func checkAddress(flag, address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%s %q: want host:port, such as 127.0.0.1:8080", flag, address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", fmt.Errorf("%s %q: the port must be a number from 0 to 65535", flag, address)
	}
	return host, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
