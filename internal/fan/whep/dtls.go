package whep

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	ecurve "crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/elliptic"

	"earshot/internal/peer"
)

// DTLS (RFC 6347, RFC 5764) is needed for one thing: to agree on SRTP's keys with the one whose certificate the offer named. The library
// does the handshake over a connection that exists only for it; afterwards its goroutines, timers and buffers go. What is kept is
// two keys: with one a client's close_notify is told from a stranger's, with the other it is told that we close.
const (
	suite = dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 // which every WebRTC client has (RFC 8827, 6.5)

	recordHeader  = 13
	explicitNonce = 8
	recordMax     = 16 << 10

	contentChange    = 20
	contentAlert     = 21
	contentHandshake = 22
	serverHello      = 2
	closeNotify      = 0
)

// identity is the certificate with which this process answers, and its fingerprint as SDP says it.
type identity struct {
	print  string
	config func(w io.Writer, verify func([][]byte, [][]*x509.Certificate) error) []dtls.ServerOption
}

// shaking is a session's handshake: a packet connection for the library, fed with what comes from the session's addresses.
type shaking struct {
	s      *session
	in     chan []byte
	closed chan struct{}
	once   sync.Once
	bytes  atomic.Int64 // taken so far

	mu       sync.Mutex
	deadline *time.Timer
	passed   chan struct{} // closed at the read deadline
	silent   bool          // nothing more may be sent
	random   []byte        // of our hello
	last     []byte        // the last flight: sent again where the client did not get it
	next     uint64        // number of the next record of epoch 1
}

const (
	// inboxDatagrams is what may wait for the library: a client's longest flight, sent twice, in small datagrams.
	inboxDatagrams = 16

	// handshakeBytes is what one handshake may take from the other side, which the library keeps while it is in fragments. A whole one with
	// a certificate of a browser has 2 KB; this is that with a chain of RSA certificates, each flight sent four times.
	handshakeBytes = 32 << 10
)

func newShaking(s *session) *shaking {
	return &shaking{s: s, in: make(chan []byte, inboxDatagrams), closed: make(chan struct{}), passed: make(chan struct{})}
}

// push takes a datagram, and drops it if there are too many: the other side sends it again.
func (k *shaking) push(b []byte) bool {
	select {
	case k.in <- bytes.Clone(b):
		k.bytes.Add(int64(len(b)))
		return true
	default:
		return false
	}
}

// ReadFrom is net.PacketConn.
func (k *shaking) ReadFrom(b []byte) (int, net.Addr, error) {
	k.mu.Lock()
	passed := k.passed
	k.mu.Unlock()
	select {
	case d := <-k.in:
		return copy(b, d), shakingAddr{}, nil
	case <-passed:
		return 0, nil, os.ErrDeadlineExceeded
	case <-k.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo is net.PacketConn. It sends to where the session is, and remembers what is needed later.
func (k *shaking) WriteTo(b []byte, _ net.Addr) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.silent {
		return len(b), nil
	}
	for r := range records(b) {
		switch {
		case r.epoch == 1:
			k.next = max(k.next, r.number+1)
			k.last = bytes.Clone(b)
		case r.kind == contentHandshake && k.random == nil && len(r.body) >= 12+2+32 && r.body[0] == serverHello:
			k.random = bytes.Clone(r.body[14:46])
		}
	}
	k.s.send(b)
	return len(b), nil
}

// hush makes the library's parting words unheard.
func (k *shaking) hush() {
	k.mu.Lock()
	k.silent = true
	k.mu.Unlock()
}

// Close is net.PacketConn.
func (k *shaking) Close() error {
	k.once.Do(func() { close(k.closed) })
	return nil
}

// LocalAddr is net.PacketConn.
func (k *shaking) LocalAddr() net.Addr { return shakingAddr{} }

// SetDeadline is net.PacketConn.
func (k *shaking) SetDeadline(t time.Time) error { return k.SetReadDeadline(t) }

// SetWriteDeadline is net.PacketConn. Writing never waits.
func (k *shaking) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline is net.PacketConn.
func (k *shaking) SetReadDeadline(t time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.deadline != nil {
		k.deadline.Stop()
	}
	select {
	case <-k.passed:
		k.passed = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	passed := k.passed
	k.deadline = time.AfterFunc(time.Until(t), func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		select {
		case <-passed:
		default:
			close(passed)
		}
	})
	return nil
}

type shakingAddr struct{}

func (shakingAddr) Network() string { return "udp" }
func (shakingAddr) String() string  { return "listener" }

// agreed is what a handshake leaves behind.
type agreed struct {
	keys *keyring
	dtls *recordKeys
	last []byte
}

var (
	errPrint   = errors.New("the certificate is not the offer's")
	errProfile = errors.New("no SRTP profile in common")
)

// shake does the handshake and forgets the library's connection. print is the fingerprint that the offer named.
func (k *shaking) shake(ctx context.Context, id *identity, hash crypto.Hash, print []byte) (*agreed, error) {
	defer func() { _ = k.Close() }()
	var log secretLog
	right := true
	conn, err := dtls.ServerWithOptions(k, shakingAddr{}, id.config(&log, func(certs [][]byte, _ [][]*x509.Certificate) error {
		if len(certs) == 0 {
			return errPrint
		}
		h := hash.New()
		h.Write(certs[0])
		if right = subtle.ConstantTimeCompare(h.Sum(nil), print) == 1; !right {
			return errPrint
		}
		return nil
	})...)
	if err != nil {
		return nil, fmt.Errorf("begin DTLS: %w", err)
	}
	defer func() {
		k.hush()
		_ = conn.Close()
	}()
	if err := conn.HandshakeContext(ctx); !right {
		return nil, errPrint
	} else if err != nil {
		return nil, fmt.Errorf("DTLS: %w", err)
	}
	k.hush()
	state, ok := conn.ConnectionState()
	profile, has := conn.SelectedSRTPProtectionProfile()
	if !ok || !has {
		return nil, errProfile
	}
	gcm := profile == dtls.SRTP_AEAD_AES_128_GCM
	material, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, materialSize(gcm))
	if err != nil {
		return nil, fmt.Errorf("export keys: %w", err)
	}
	a := &agreed{}
	if a.keys, err = newKeyring(gcm, material); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if a.dtls, err = log.keys(k.random); err != nil {
		return nil, err
	}
	a.dtls.next, a.last = k.next, k.last
	return a, nil
}

// secretLog takes the master secret from the only place where the library gives it away: a line of the key log.
type secretLog struct{ line []byte }

// Write is io.Writer.
func (l *secretLog) Write(b []byte) (int, error) {
	l.line = append(l.line[:0], b...)
	return len(b), nil
}

// recordKeys open the client's records of epoch 1 and seal ours (RFC 5288, RFC 6347).
type recordKeys struct {
	client, server     [keySize]byte
	clientIV, serverIV [4]byte
	next               uint64 // number of our next record
}

// keys expands the master secret (RFC 5246, 6.3).
func (l *secretLog) keys(serverRandom []byte) (*recordKeys, error) {
	f := bytes.Fields(l.line)
	if len(f) != 3 || len(serverRandom) != 32 {
		return nil, errors.New("DTLS: no master secret")
	}
	clientRandom, err := hex.DecodeString(string(f[1]))
	if err != nil {
		return nil, fmt.Errorf("DTLS: %w", err)
	}
	master, err := hex.DecodeString(string(f[2]))
	if err != nil {
		return nil, fmt.Errorf("DTLS: %w", err)
	}
	seed := append(append([]byte("key expansion"), serverRandom...), clientRandom...)
	mac := hmac.New(sha256.New, master)
	next := func(parts ...[]byte) []byte {
		mac.Reset()
		for _, p := range parts {
			mac.Write(p)
		}
		return mac.Sum(nil)
	}
	var block []byte
	for a := next(seed); len(block) < 2*keySize+8; a = next(a) {
		block = append(block, next(a, seed)...)
	}
	k := &recordKeys{}
	copy(k.client[:], block)
	copy(k.server[:], block[keySize:])
	copy(k.clientIV[:], block[2*keySize:])
	copy(k.serverIV[:], block[2*keySize+4:])
	return k, nil
}

// record is one DTLS record in a datagram.
type record struct {
	kind   byte
	epoch  uint16
	number uint64 // 48 bits
	raw    []byte // header and body
	body   []byte
}

// records gives the whole records of a datagram, in order.
func records(b []byte) func(yield func(record) bool) {
	return func(yield func(record) bool) {
		for len(b) >= recordHeader {
			n := int(binary.BigEndian.Uint16(b[11:]))
			if b[1] != 0xfe || n > recordMax || recordHeader+n > len(b) {
				return
			}
			r := record{
				kind: b[0], epoch: binary.BigEndian.Uint16(b[3:]), number: binary.BigEndian.Uint64(b[3:]) & (1<<48 - 1),
				raw: b[:recordHeader+n], body: b[recordHeader : recordHeader+n],
			}
			b = b[recordHeader+n:]
			if !yield(r) {
				return
			}
		}
	}
}

func recordAEAD(key, iv []byte, explicit []byte) (cipher.AEAD, [12]byte, error) {
	var nonce [12]byte
	copy(nonce[:], iv)
	copy(nonce[4:], explicit)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nonce, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, nonce, err
}

// additional is what a record's tag covers beside its text.
func additional(header []byte, size int) (aad [recordHeader]byte) {
	copy(aad[:8], header[3:11])
	copy(aad[8:11], header[:3])
	binary.BigEndian.PutUint16(aad[11:], uint16(size))
	return aad
}

// open gives the text of a client's record of epoch 1.
func (k *recordKeys) open(r record) ([]byte, error) {
	size := len(r.body) - explicitNonce - tagSize
	if r.epoch != 1 || size < 0 {
		return nil, errForged
	}
	aead, nonce, err := recordAEAD(k.client[:], k.clientIV[:], r.body[:explicitNonce])
	if err != nil {
		return nil, err
	}
	aad := additional(r.raw, size)
	text, err := aead.Open(nil, nonce[:], r.body[explicitNonce:], aad[:])
	if err != nil {
		return nil, errForged
	}
	return text, nil
}

// goodbye is our close_notify, which the client believes.
func (k *recordKeys) goodbye() ([]byte, error) {
	text := []byte{1, closeNotify} // a warning
	b := make([]byte, recordHeader+explicitNonce, recordHeader+explicitNonce+len(text)+tagSize)
	b[0], b[1], b[2] = contentAlert, 0xfe, 0xfd
	binary.BigEndian.PutUint64(b[3:], 1<<48|k.next)
	binary.BigEndian.PutUint16(b[11:], uint16(explicitNonce+len(text)+tagSize))
	copy(b[recordHeader:], b[3:11])
	k.next++
	aead, nonce, err := recordAEAD(k.server[:], k.serverIV[:], b[recordHeader:])
	if err != nil {
		return nil, err
	}
	aad := additional(b, len(text))
	return aead.Seal(b, nonce[:], text, aad[:]), nil
}

// newIdentity makes the certificate of this process.
func newIdentity(log *slog.Logger) (*identity, error) {
	cert, print, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("make a certificate for DTLS: %w", err)
	}
	common := []dtls.ServerOption{
		dtls.WithCertificates(cert),
		dtls.WithCipherSuites(suite),
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80),
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		dtls.WithEllipticCurves(elliptic.P256), // which everybody has (RFC 8827, 6.5), and which is a third of X25519 here
		// The address proved that it receives, see question: the cookie's round trip (RFC 6347, 4.2.1) would tell nothing new.
		dtls.WithInsecureSkipVerifyHello(true),
		// The library answers no repeated hello, but repeats its flight by its own clock, at twice the interval each time. From the usual
		// second on that would be four times before we give up.
		dtls.WithFlightInterval(250 * time.Millisecond),
		dtls.WithLoggerFactory(peer.Logs(log)),
	}
	id := &identity{print: print}
	id.config = func(w io.Writer, verify func([][]byte, [][]*x509.Certificate) error) []dtls.ServerOption {
		return append(common[:len(common):len(common)], dtls.WithKeyLogWriter(w), dtls.WithVerifyPeerCertificate(verify))
	}
	return id, nil
}

// selfSigned makes a certificate that says nothing: what counts is its fingerprint in the answer (RFC 8122).
func selfSigned() (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(ecurve.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return tls.Certificate{}, "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "WebRTC"}, NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	var print []string
	for _, b := range sha256.Sum256(der) {
		print = append(print, fmt.Sprintf("%02X", b))
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, strings.Join(print, ":"), nil
}
