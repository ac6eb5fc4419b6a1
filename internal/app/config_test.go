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
