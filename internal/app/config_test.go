package app_test

import (
	"net/netip"
	"strings"
	"testing"

	"earshot/internal/app"
)

func TestValidate(t *testing.T) {
	good := app.Config{Listen: "127.0.0.1:8080", UDP: "127.0.0.1:8443", Data: "data"}
	for _, c := range []struct {
		name   string
		change func(*app.Config)
		says   []string // words of the error; none: accepted
	}{
		{"defaults", func(*app.Config) {}, nil},
		{"all interfaces", func(c *app.Config) { c.Listen, c.UDP = ":8080", "[::]:8443" }, nil},
		{"demo on localhost", func(c *app.Config) { c.Demo, c.Listen = true, "localhost:80" }, nil},
		{"demo on IPv6 loopback", func(c *app.Config) { c.Demo, c.Listen = true, "[::1]:80" }, nil},
		{"demo in public", func(c *app.Config) { c.Demo, c.Listen = true, "203.0.113.7:80" }, []string{"--demo", "127.0.0.1"}},
		{"demo on all interfaces", func(c *app.Config) { c.Demo, c.Listen = true, ":80" }, []string{"--demo", "127.0.0.1"}},
		{"no port", func(c *app.Config) { c.Listen = "127.0.0.1" }, []string{"--listen", "host:port"}},
		{"port out of range", func(c *app.Config) { c.UDP = "127.0.0.1:70000" }, []string{"--udp", "65535"}},
		{"no data", func(c *app.Config) { c.Data = "" }, []string{"--data"}},
		{"an edge", func(c *app.Config) { c.NATS, c.Roles = "nats://127.0.0.1:4222", []app.Role{app.RoleEdge} }, nil},
		{"a cluster", func(c *app.Config) { c.NATS, c.NATSReplicas = "tls://u:p@a:4222,tls://u:p@b:4222", 3 }, nil},
		{"a strange role", func(c *app.Config) { c.NATS, c.Roles = "nats://a:4222", []app.Role{"speaker"} }, []string{"--node-roles", "stage,edge"}},
		{"an edge alone", func(c *app.Config) { c.Roles = []app.Role{app.RoleEdge} }, []string{"--node-roles", "--nats"}},
		{"not NATS", func(c *app.Config) { c.NATS = "http://a:4222" }, []string{"--nats", "nats://host:4222"}},
		{"two replicas", func(c *app.Config) { c.NATS, c.NATSReplicas = "nats://a:4222", 2 }, []string{"--nats", "1, 3 or 5"}},
		{"replicas of nothing", func(c *app.Config) { c.NATSReplicas = 3 }, []string{"--nats-replicas"}},
		{"demo on an edge", func(c *app.Config) {
			c.NATS, c.Roles, c.Demo = "nats://a:4222", []app.Role{app.RoleEdge}, true
		}, []string{"--demo", "stage"}},
		{"public", func(c *app.Config) { c.Public = "https://voice.example.org" }, nil},
		{"public with a path", func(c *app.Config) { c.Public = "https://voice.example.org/" }, []string{"--public", "slash"}},
		{"proxies", func(c *app.Config) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")}
		}, nil},
		{"everybody is a proxy", func(c *app.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("::/0")} }, []string{"--trusted-proxies ::/0", "everybody"}},
		{"a proxy's address as a network", func(c *app.Config) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}
		}, []string{"--trusted-proxies 10.1.2.3/8", "10.0.0.0/8"}},
		{"a domain", func(c *app.Config) {
			c.Domains, c.ACMEEmail = []string{"talk.example.org", "gespräch.example"}, "me@example.org"
		}, nil},
		{"a domain's address", func(c *app.Config) { c.Domains = []string{"https://talk.example.org"} }, []string{"--domain", "without https://"}},
		{"a domain with a port", func(c *app.Config) { c.Domains = []string{"talk.example.org:443"} }, []string{"--domain", "without a port"}},
		{"a wildcard", func(c *app.Config) { c.Domains = []string{"*.example.org"} }, []string{"--domain", "wildcard"}},
		{"half a domain", func(c *app.Config) { c.Domains = []string{"localhost"} }, []string{"--domain", "full domain name"}},
		{"an IP address", func(c *app.Config) { c.Domains = []string{"192.0.2.1"} }, []string{"--domain", "192.0.2.1", "domain name"}},
		{"no domain", func(c *app.Config) { c.Domains = []string{""} }, []string{"--domain", "full domain name"}},
		{"a domain and a certificate", func(c *app.Config) { c.Domains, c.Cert, c.Key = []string{"talk.example.org"}, "a", "b" }, []string{"--domain", "--cert"}},
		{"an authority for nothing", func(c *app.Config) { c.ACMEDirectory = "https://ca.example" }, []string{"--acme-directory", "--domain"}},
		{"an authority without TLS", func(c *app.Config) {
			c.Domains, c.ACMEDirectory = []string{"talk.example.org"}, "http://ca.example"
		}, []string{"--acme-directory", "https://"}},
		{"no address", func(c *app.Config) { c.Domains, c.ACMEEmail = []string{"talk.example.org"}, "me" }, []string{"--acme-email", "you@example.org"}},
		{"advertise everything", func(c *app.Config) { c.Advertise = []netip.Addr{netip.IPv4Unspecified()} }, []string{"--advertise", "0.0.0.0"}},
	} {
		cfg := good
		c.change(&cfg)
		err := cfg.Validate()
		if (err != nil) != (len(c.says) > 0) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, word := range c.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not say %q", c.name, err, word)
			}
		}
	}
}
