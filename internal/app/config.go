package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
)

// Config is what an operator says about a node. All of it is judged before anything listens.
type Config struct {
	// Listen is the TCP address of HTTP: host:port. Browsers give a microphone only to pages from localhost or over HTTPS, so
	// an address that others reach needs Cert and Key, or a proxy that speaks HTTPS in front.
	Listen string

	// Cert and Key are PEM files of a certificate chain and its key. With them Listen speaks HTTPS: TLS 1.2 and later, HTTP/2 and 1.1.
	Cert, Key string

	// UDP is the address, host:port, of all WebRTC media. The same port number is taken over TCP as a fallback.
	UDP string

	// Advertise lists the addresses that ICE candidates name, where they differ from the one in UDP: behind a NAT, the public
	// one. Empty: the address in UDP, or all interfaces' addresses if that is unspecified.
	Advertise []netip.Addr

	// Data is the folder of everything that is kept. It is created if missing, and belongs to one process at a time.
	Data string

	// Demo opens an event with two synthetic voices and prints a link with which anybody on this machine hosts it. Refused
	// unless Listen is a loopback address.
	Demo bool

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
	if c.Data == "" {
		return errors.New("--data is empty: name a folder that this process may write, such as ./data")
	}
	for _, a := range c.Advertise {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("--advertise %s: browsers cannot send there; name the address at which they reach this machine", a)
		}
	}
	if c.Demo && !loopback(host) {
		return fmt.Errorf("--demo with --listen %s: the demo prints a host link and belongs to this machine alone; "+
			"listen on 127.0.0.1 or leave --demo out", c.Listen)
	}
	return nil
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
