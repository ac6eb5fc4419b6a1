package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"earshot/internal/app"
)

// serveCmd's flags may be said by the environment and by a file too: see settings. A flag that may hold a secret has the tag secret: see hide.
type serveCmd struct {
	Config    string     `type:"path" placeholder:"FILE" help:"File of settings, in YAML: 'listen: 127.0.0.1:8080' says --listen. A flag beats the environment (EARSHOT_LISTEN), which beats the file."`
	Listen    string     `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"TCP address of HTTP (${default})."`
	Cert      string     `type:"path" placeholder:"FILE" help:"Certificate chain in PEM: --listen then speaks HTTPS (with --key)."`
	Key       string     `type:"path" placeholder:"FILE" help:"Private key of --cert, in PEM."`
	Domain    []string   `placeholder:"NAME[,NAME]" help:"Domain of this node: its certificate is got by itself, from Let's Encrypt unless --acme-directory says otherwise, whose terms you agree to by this. --listen is then :443 and --udp :8443, unless they are said."`
	ACMEDir   string     `name:"acme-directory" placeholder:"URL" help:"ACME directory of another authority."`
	ACMEEmail string     `name:"acme-email" placeholder:"ADDRESS" help:"Where the authority may write to."`
	ACMECA    string     `name:"acme-ca" type:"path" placeholder:"FILE" help:"Certificates in PEM to trust when asking --acme-directory, in place of the system's."`
	UDP       string     `default:"127.0.0.1:8443" placeholder:"HOST:PORT" name:"udp" help:"UDP address of all WebRTC media; the same port is taken over TCP as a fallback (${default})."`
	Advertise []string   `placeholder:"IP[,IP]" help:"Addresses that ICE candidates name, if they differ from --udp: behind a NAT, the public one."`
	Proxies   []string   `name:"trusted-proxies" placeholder:"NET[,NET]" help:"Networks or addresses of proxies in front, such as 10.0.0.0/8: from these alone X-Forwarded-For, -Proto and -Host are believed."`
	Data      string     `default:"./data" type:"path" help:"Folder of all that is kept; one process at a time (${default})."`
	FFmpeg    string     `placeholder:"FILE" name:"ffmpeg" help:"Program that makes AAC and MP3 (ffmpeg, where it is on the PATH)."`
	Nodes     nodesFlags `embed:""`
	Demo      bool       `help:"Open an event with two synthetic voices. Only on a loopback address."`
	LogLevel  string     `default:"info" enum:"debug,info,warn,error" help:"Least level that is logged: debug, info, warn or error (${default})."`
	LogFormat string     `default:"text" enum:"text,json" help:"Form of the log on standard error: text or json (${default})."`
}

// Help is what --help adds.
func (*serveCmd) Help() string {
	return `Every flag can be said by the environment and by a file as well, under the same name: --node-roles is EARSHOT_NODE_ROLES, and 'node-roles'
in the file that --config names. 'earshot config' prints what is in force and where it comes from.`
}

// Run is `earshot serve`.
func (c *serveCmd) Run(s *settings) error {
	c.derive(s)
	cfg := app.Config{Version: version, Log: newLog(os.Stderr, c.LogLevel, c.LogFormat)}
	if err := c.fill(&cfg); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	node, err := app.New(ctx, cfg)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	printLinks(os.Stdout, node.Links(), c.Demo)
	return node.Run(ctx)
}

// derive sets what follows from other settings where nobody said it, and tells of each why.
func (c *serveCmd) derive(s *settings) map[string]string {
	why := map[string]string{}
	if len(c.Domain) == 0 {
		return why
	}
	set := func(flag string, to *string, value string) {
		if !s.said(flag) {
			*to, why[flag] = value, "default beside --domain"
		}
	}
	set("listen", &c.Listen, ":443")
	set("udp", &c.UDP, ":8443")
	set("public", &c.Nodes.Public, "https://"+c.Domain[0])
	return why
}

// fill says to the node what the flags say.
func (c *serveCmd) fill(cfg *app.Config) error {
	cfg.Listen, cfg.Cert, cfg.Key, cfg.UDP, cfg.Data, cfg.FFmpeg, cfg.Demo = c.Listen, c.Cert, c.Key, c.UDP, c.Data, c.FFmpeg, c.Demo
	cfg.Domains, cfg.ACMEDirectory, cfg.ACMEEmail, cfg.ACMECA = c.Domain, c.ACMEDir, c.ACMEEmail, c.ACMECA
	c.Nodes.fill(cfg)
	for _, s := range c.Advertise {
		a, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("--advertise %q: want IP addresses, such as 203.0.113.7", s)
		}
		cfg.Advertise = append(cfg.Advertise, a)
	}
	for _, s := range c.Proxies {
		p, err := parseNetwork(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("--trusted-proxies %q: want networks or addresses, such as 10.0.0.0/8 or 2001:db8::1", s)
		}
		cfg.TrustedProxies = append(cfg.TrustedProxies, p)
	}
	return nil
}

// parseNetwork takes one address for a network of its own.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

// printLinks tells a person at the terminal where to start. The operator's secret is printed where somebody reads it: with
// the demo, at the first start, or to a terminal; a service's later starts do not repeat it into a journal.
func printLinks(w *os.File, l app.Links, demo bool) {
	fmt.Fprintln(w)
	if l.Host != "" {
		fmt.Fprintln(w, "  Host      ", l.Host)
	}
	fmt.Fprintln(w, "  Listener  ", l.Listener)
	if demo || l.NewKey && os.Getenv("JOURNAL_STREAM") == "" || isTerminal(w) {
		fmt.Fprintln(w, "  Operator  ", l.Operator)
	} else {
		page, _, _ := strings.Cut(l.Operator, "#")
		fmt.Fprintf(w, "  Operator   %s#k= followed by the key in %s\n", page, l.KeyFile)
	}
	fmt.Fprintln(w)
}

func newLog(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // kong lets only known words pass
	opts := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
