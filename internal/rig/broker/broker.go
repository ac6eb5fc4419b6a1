// Package broker is a NATS server in the test's own process. It stands apart from package rig, so that only tests which share a store
// link one. Only tests import it.
package broker

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Server is a NATS server on a loopback port, as `nats-server -js` would run. Its methods fail the test that made it.
type Server struct {
	*server.Server // the one that runs, or ran last

	t    testing.TB
	opts server.Options
}

// Run starts a server with a store of its own, which stops with the test. Each change may alter its options before.
func Run(t testing.TB, change ...func(*server.Options)) *Server {
	t.Helper()
	s := &Server{t: t, opts: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	}}
	for _, f := range change {
		f(&s.opts)
	}
	s.Start()
	s.opts.Port = s.Addr().(*net.TCPAddr).Port
	t.Cleanup(s.Stop)
	return s
}

// Start starts it again after Stop, on the same port and with the same store.
func (s *Server) Start() {
	s.t.Helper()
	opts := s.opts // the server writes into what it is given
	ns, err := server.NewServer(&opts)
	if err != nil {
		s.t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		s.t.Fatal("the NATS server did not start")
	}
	s.Server = ns
}

// Stop stops it and waits until nothing of it runs.
func (s *Server) Stop() {
	s.Shutdown()
	s.WaitForShutdown()
}

// URL is the server's address. user is empty, or the user and password that it wants, as in "name:password@".
func (s *Server) URL(user string) string {
	return fmt.Sprintf("nats://%s127.0.0.1:%d", user, s.opts.Port)
}
