package whep

// Connections is how many TCP connections are open on the port: descriptors that the rest of the process has to do without.
func (p *Port) Connections() int {
	p.tcp.mu.Lock()
	defer p.tcp.mu.Unlock()
	return len(p.tcp.conns)
}
