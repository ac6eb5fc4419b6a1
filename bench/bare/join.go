//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

type joinCmd struct {
	N     int           `default:"10000" help:"Joiners, who stay."`
	TLS   bool          `help:"A full TLS 1.3 handshake first."`
	Limit time.Duration `default:"60s" help:"Give up after so long."`
}

// answer is as long as what a listener of push gets at once: upgrade, hello, initialisation segment, two parts.
var answer = append([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), make([]byte, 2800)...)

const request = "GET /e/demo/live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// Run listens, says where, and measures from the first joiner to the last.
func (c *joinCmd) Run() error {
	if c.TLS {
		return c.secure()
	}
	return c.plain()
}

// plain accepts, reads and answers from one epoll loop.
func (c *joinCmd) plain() error {
	runtime.LockOSThread()
	l, addr, err := listen()
	if err != nil {
		return err
	}
	p, err := newPoll()
	if err != nil {
		return err
	}
	if err := p.add(l, unix.EPOLLIN); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	say("listening %v", addr)
	r := result{Loop: "join", Listeners: c.N}
	buf := make([]byte, 4096)
	var begun time.Time
	var cpu time.Duration
	for deadline := time.Now().Add(c.Limit); r.Did+r.Failed < int64(c.N) && time.Now().Before(deadline); {
		for _, e := range p.wait(100 * time.Millisecond) {
			if begun.IsZero() {
				begun, cpu = time.Now(), threadCPU()
			}
			if int(e.Fd) != l {
				// A request comes in one piece on loopback; what does not is a failure here.
				n := read(int(e.Fd), buf)
				if n < 0 {
					continue
				}
				if n == len(request) && bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) && write(int(e.Fd), answer) {
					r.Did++
				} else {
					r.Failed++
				}
				continue
			}
			for {
				fd, _, err := unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
				if err != nil {
					break
				}
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
				if err := p.add(fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET); err != nil {
					return fmt.Errorf("epoll: %w", err)
				}
			}
		}
	}
	r.Seconds, r.CPUUS = time.Since(begun).Seconds(), float64((threadCPU()-cpu).Nanoseconds())/1e3
	return r.tell()
}

// secure does the same with crypto/tls and a goroutine per handshake, which is how Go does it; the connections stay.
func (c *joinCmd) secure() error {
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	say("listening %v", l.Addr())
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true}
	r := result{Loop: "join-tls", Listeners: c.N}
	var did, failed atomic.Int64
	var all sync.WaitGroup
	conns := make([]*tls.Conn, 0, c.N)
	var begun time.Time
	var cpu time.Duration
	for range c.N {
		if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(c.Limit)); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		conn, err := l.Accept()
		if err != nil {
			failed.Add(1)
			break
		}
		if begun.IsZero() {
			begun, cpu = time.Now(), processCPU()
		}
		tc := tls.Server(conn, cfg)
		conns = append(conns, tc)
		all.Go(func() {
			_ = tc.SetDeadline(time.Now().Add(c.Limit))
			buf := make([]byte, 1024)
			n, err := tc.Read(buf)
			if err == nil && n == len(request) {
				_, err = tc.Write(answer)
			}
			if err != nil {
				failed.Add(1)
				return
			}
			did.Add(1)
		})
	}
	all.Wait()
	r.Did, r.Failed = did.Load(), failed.Load()
	r.Seconds, r.CPUUS = time.Since(begun).Seconds(), float64((processCPU()-cpu).Nanoseconds())/1e3
	runtime.KeepAlive(conns)
	return r.tell()
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("key: %w", err)
	}
	now := time.Now()
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// join makes N joiners, many at a time, who stay until the sink ends.
func (c *sinkCmd) join(to netip.AddrPort, over *atomic.Bool) error {
	cfg := c.clientTLS()
	places := make(chan int)
	var all sync.WaitGroup
	held := make([]net.Conn, c.N)
	failures := make(chan error, c.N)
	for range c.Many {
		all.Go(func() {
			for i := range places {
				conn, err := ask(i, to, c.TLS, cfg)
				if err != nil {
					failures <- err
					continue
				}
				held[i] = conn
			}
		})
	}
	for i := range c.N {
		if over.Load() {
			break
		}
		places <- i
	}
	close(places)
	all.Wait()
	close(failures)
	for !over.Load() {
		time.Sleep(10 * time.Millisecond) // they stay; the parent says when to end
	}
	runtime.KeepAlive(held)
	var err error
	for e := range failures {
		err = errors.Join(err, e)
		if len(failures) > 3 {
			return fmt.Errorf("%w (and %d more)", err, len(failures))
		}
	}
	return err
}

func ask(i int, to netip.AddrPort, secure bool, cfg *tls.Config) (net.Conn, error) {
	tcp, err := dialFrom(i, to.String())
	if err != nil {
		return nil, err
	}
	var conn net.Conn = tcp
	if secure {
		conn = tls.Client(conn, cfg)
	}
	if _, err = io.WriteString(conn, request); err == nil {
		_, err = io.ReadFull(conn, make([]byte, len(answer)))
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("joiner %d: %w", i, err)
	}
	return conn, nil
}

// clientTLS is for our own loops on loopback, whose certificate nobody signed; what is measured is the server.
func (c *sinkCmd) clientTLS() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
	switch c.Curve {
	case "x25519":
		cfg.CurvePreferences = []tls.CurveID{tls.X25519}
	case "mlkem":
		cfg.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	}
	return cfg
}

// dialFrom connects from the address that is the i-th one's, and allows half a minute for what follows.
func dialFrom(i int, to string) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: loopback(i / 10000).AsSlice()}, Timeout: 30 * time.Second}
	conn, err := d.Dial("tcp", to)
	if err != nil {
		return nil, fmt.Errorf("joiner %d: %w", i, err)
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return conn.(*net.TCPConn), nil
}
