package whep

import (
	"net"
	"net/netip"
)

// where is a UDP address without pointers: 24 bytes, so that a map of a hundred thousand of them costs the collector nothing. IPv4
// addresses stand in their mapped form.
type where struct {
	ip   [16]byte
	zone uint32 // of a link-local address; 0: none
	port uint16
}

func whereOf(a netip.AddrPort) where {
	w := where{ip: a.Addr().As16(), port: a.Port()}
	if zone := a.Addr().Zone(); zone != "" {
		if i, err := net.InterfaceByName(zone); err == nil {
			w.zone = uint32(i.Index)
		}
	}
	return w
}

// addr gives the address without its zone.
func (w where) addr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(w.ip).Unmap(), w.port)
}

func (w where) is4() bool { return netip.AddrFrom16(w.ip).Is4In6() }
