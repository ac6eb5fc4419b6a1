package app

import (
	"net"
	"net/netip"
)

// Links are the addresses with which a person starts. Those with a secret are for the terminal, never for a log.
type Links struct {
	Host     string // the demo's studio; empty without --demo
	Listener string // the demo's page, or home
	Operator string
	KeyFile  string // where the operator's key lies
	NewKey   bool   // it was made by this start
}

// Links gives this node's.
func (a *App) Links() Links {
	base := a.URL()
	if len(a.cfg.Domains) > 0 { // the certificate is for no other address
		base = a.cfg.Public
	}
	l := Links{
		Listener: base + "/",
		Operator: base + "/operator#k=" + a.operatorKey,
		KeyFile:  a.keyFile(),
		NewKey:   a.newKey,
	}
	if d := a.house.demo; d != nil {
		l.Listener = base + "/e/" + d.slug
		l.Host = base + "/e/" + d.slug + "/studio#k=" + d.hostSecret
	}
	return l
}

// keyFile says where the operator's key lies.
func (a *App) keyFile() string {
	if !a.cfg.is(RoleStage) {
		return "the data folder of a node with the role stage"
	}
	return a.cfg.Data + "/operator.key"
}

// address is where other nodes tell people to find this one; empty if that can't be known.
func (a *App) address() string {
	if a.cfg.Public != "" {
		return a.cfg.Public
	}
	if addr, ok := a.http.Addr().(*net.TCPAddr); !ok || addr.IP.IsUnspecified() {
		return ""
	}
	return a.URL()
}

// URL is the address at which this machine's own browser reaches the node. It says localhost for loopback: browsers give
// localhost a microphone and Secure cookies without HTTPS.
func (a *App) URL() string {
	scheme := "http://"
	if a.tls != nil {
		scheme = "https://"
	}
	host, port, err := net.SplitHostPort(a.http.Addr().String())
	if err != nil {
		return scheme + a.http.Addr().String()
	}
	if ip, err := netip.ParseAddr(host); err == nil && (ip.IsLoopback() || ip.IsUnspecified()) {
		host = "localhost"
	}
	return scheme + net.JoinHostPort(host, port)
}
