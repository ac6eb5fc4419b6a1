package crowd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	dtlselliptic "github.com/pion/dtls/v3/pkg/crypto/elliptic"
	"github.com/pion/logging"
	"github.com/pion/srtp/v3"
	"github.com/pion/transport/v4/deadline"
)

// certificate makes what all listeners of a process show: a key for each would cost them, not the server.
func certificate() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("make a certificate: %w", err)
	}
	sum := sha256.Sum256(der)
	digits := strings.ToUpper(hex.EncodeToString(sum[:]))
	var b strings.Builder
	for i := 0; i < len(digits); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(digits[i : i+2])
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, b.String(), nil
}

// packetPipe is what pion/dtls takes for a socket: the loop puts in what came for one listener, and what is written goes out by the shared
// socket. After mute nothing goes out, so that the end of the handshake's goroutine is not the session's.
type packetPipe struct {
	sock *udpSocket
	from netip.Addr
	to   netip.AddrPort
	in   chan []byte
	dead *deadline.Deadline

	mu     sync.Mutex
	muted  bool
	closed chan struct{}
	once   sync.Once
}

func newPacketPipe(s *udpSocket, from netip.Addr, to netip.AddrPort) *packetPipe {
	// A flight has four or five packets; what there is no room for comes again.
	return &packetPipe{sock: s, from: from, to: to, in: make(chan []byte, 8), dead: deadline.New(), closed: make(chan struct{})}
}

// put is called by the loop.
func (p *packetPipe) put(b []byte) {
	select {
	case p.in <- bytes.Clone(b):
	default:
	}
}

func (p *packetPipe) mute() {
	p.mu.Lock()
	p.muted = true
	p.mu.Unlock()
}

// ReadFrom is net.PacketConn's.
func (p *packetPipe) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-p.dead.Done():
		return 0, nil, context.DeadlineExceeded
	default:
	}
	select {
	case in := <-p.in:
		return copy(b, in), p.remote(), nil
	case <-p.dead.Done():
		return 0, nil, context.DeadlineExceeded
	case <-p.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo is net.PacketConn's.
func (p *packetPipe) WriteTo(b []byte, _ net.Addr) (int, error) {
	p.mu.Lock() // over the send, which does not wait: after mute the socket may be closed
	defer p.mu.Unlock()
	if !p.muted {
		p.sock.send(p.from, p.to, b)
	}
	return len(b), nil
}

// Close is net.PacketConn's.
func (p *packetPipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *packetPipe) remote() net.Addr { return net.UDPAddrFromAddrPort(p.to) }

// LocalAddr is net.PacketConn's.
func (p *packetPipe) LocalAddr() net.Addr { return &net.UDPAddr{} }

// SetDeadline is net.PacketConn's.
func (p *packetPipe) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline is net.PacketConn's.
func (p *packetPipe) SetReadDeadline(t time.Time) error {
	p.dead.Set(t)
	return nil
}

// SetWriteDeadline is net.PacketConn's; no write waits.
func (p *packetPipe) SetWriteDeadline(time.Time) error { return nil }

// keys are what DTLS is for: the contexts of SRTP (RFC 5764).
type keys struct {
	in, out *srtp.Context
}

var errFingerprint = errors.New("the certificate is not the one of the SDP answer")

// handshakeDTLS does the handshake and gives the keys. When it returns none of its goroutines is left, and the other side knows
// nothing of that: a listener that leaves says so over HTTP.
func handshakeDTLS(ctx context.Context, p *packetPipe, cert tls.Certificate, fingerprint []byte, server bool) (*keys, error) {
	verify := dtls.WithVerifyPeerCertificate(func(raw [][]byte, _ [][]*x509.Certificate) error {
		if len(raw) == 0 {
			return errFingerprint
		}
		if sum := sha256.Sum256(raw[0]); !bytes.Equal(sum[:], fingerprint) {
			return errFingerprint
		}
		return nil
	})
	common := []dtls.Option{
		dtls.WithCertificates(cert), dtls.WithInsecureSkipVerify(true), verify,
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80),
		dtls.WithEllipticCurves(dtlselliptic.X25519, dtlselliptic.P256),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithLoggerFactory(quiet{}),
	}
	var conn *dtls.Conn
	var err error
	if server {
		options := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert), dtls.WithInsecureSkipVerifyHello(true)}
		for _, o := range common {
			options = append(options, o)
		}
		conn, err = dtls.ServerWithOptions(p, p.remote(), options...)
	} else {
		var options []dtls.ClientOption
		for _, o := range common {
			options = append(options, o)
		}
		conn, err = dtls.ClientWithOptions(p, p.remote(), options...)
	}
	if err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("begin DTLS: %w", err)
	}
	err = conn.HandshakeContext(ctx)
	p.mute()
	var k *keys
	if err == nil {
		k, err = exportKeys(conn, server)
	}
	_ = conn.Close()
	_ = p.Close()
	if err != nil {
		return nil, fmt.Errorf("DTLS: %w", err)
	}
	return k, nil
}

func exportKeys(conn *dtls.Conn, server bool) (*keys, error) {
	profile, ok := conn.SelectedSRTPProtectionProfile()
	if !ok {
		return nil, errors.New("no SRTP profile was agreed on")
	}
	state, ok := conn.ConnectionState()
	if !ok {
		return nil, io.ErrUnexpectedEOF
	}
	sp := srtp.ProtectionProfile(profile)
	keyLen, err := sp.KeyLen()
	if err != nil {
		return nil, err
	}
	saltLen, err := sp.SaltLen()
	if err != nil {
		return nil, err
	}
	// client key, server key, client salt, server salt (RFC 5764, 4.2)
	m, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(keyLen+saltLen))
	if err != nil {
		return nil, err
	}
	key, salt := m[:2*keyLen], m[2*keyLen:]
	mine, theirs := 0, 1
	if server {
		mine, theirs = 1, 0
	}
	context := func(i int) (*srtp.Context, error) {
		return srtp.CreateContext(key[i*keyLen:(i+1)*keyLen], salt[i*saltLen:(i+1)*saltLen], sp)
	}
	k := &keys{}
	if k.in, err = context(theirs); err != nil {
		return nil, err
	}
	if k.out, err = context(mine); err != nil {
		return nil, err
	}
	return k, nil
}

// quiet is a logger of the library's that says nothing: a failed handshake is counted.
type quiet struct{}

// NewLogger is logging.LoggerFactory's.
func (quiet) NewLogger(string) logging.LeveledLogger { return silence{} }

type silence struct{}

func (silence) Trace(string)          {}
func (silence) Tracef(string, ...any) {}
func (silence) Debug(string)          {}
func (silence) Debugf(string, ...any) {}
func (silence) Info(string)           {}
func (silence) Infof(string, ...any)  {}
func (silence) Warn(string)           {}
func (silence) Warnf(string, ...any)  {}
func (silence) Error(string)          {}
func (silence) Errorf(string, ...any) {}
