package whep

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"

	"github.com/pion/srtp/v3"
)

// SRTP in one direction, with AES-GCM (RFC 7714) where the other side can: then a session needs one cipher of 768 bytes, and sealing
// reads the shared payload and writes straight into the outbox. AES-CM with HMAC-SHA1 (RFC 3711) is for those who cannot; the library
// does it, at three times the price.
const (
	keySize   = 16
	saltSize  = 12
	tagSize   = 16
	rtpHeader = 12

	rtcpTrailer = 4 // the encryption flag and the index
)

// Labels of the key derivation (RFC 3711, 4.3.1).
const (
	labelRTP      = 0
	labelRTPSalt  = 2
	labelRTCP     = 3
	labelRTCPSalt = 5
)

var errForged = errors.New("whep: not authentic")

// derive is the key derivation at rate 0 (RFC 3711, 4.3.3; RFC 7714, 11 for the salt of 96 bits), for outputs of one block.
func derive(block cipher.Block, salt []byte, label byte, out []byte) {
	var x [16]byte
	copy(x[:14], salt)
	x[7] ^= label
	block.Encrypt(x[:], x[:])
	copy(out, x[:])
}

// rtcpKeys protect SRTCP in one direction. The cipher is made for each packet: there is one every few seconds, and kept it would be most of
// a session's memory.
type rtcpKeys struct {
	key  [keySize]byte
	salt [saltSize]byte
}

func gcmOf(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// keyring is what a session seals with and opens with.
type keyring struct {
	rtp     cipher.AEAD // nil: the old way
	rtpSalt [saltSize]byte
	out, in rtcpKeys
	old     *oldWay
}

// oldWay is AES-CM in the library's hands.
type oldWay struct {
	out, in *srtp.Context
}

// newKeyring takes the master keys that DTLS agreed on (RFC 5764, 4.2): ours is the server's.
func newKeyring(gcm bool, material []byte) (*keyring, error) {
	if !gcm {
		const key, salt = 16, 14
		old := &oldWay{}
		var err error
		if old.in, err = srtp.CreateContext(material[:key], material[2*key:2*key+salt], srtp.ProtectionProfileAes128CmHmacSha1_80,
			srtp.SRTCPReplayProtection(64)); err != nil {
			return nil, err
		}
		if old.out, err = srtp.CreateContext(material[key:2*key], material[2*key+salt:], srtp.ProtectionProfileAes128CmHmacSha1_80); err != nil {
			return nil, err
		}
		return &keyring{old: old}, nil
	}
	client, err := aes.NewCipher(material[:keySize])
	if err != nil {
		return nil, err
	}
	server, err := aes.NewCipher(material[keySize : 2*keySize])
	if err != nil {
		return nil, err
	}
	clientSalt, serverSalt := material[2*keySize:2*keySize+saltSize], material[2*keySize+saltSize:]
	k := &keyring{}
	var key [keySize]byte
	derive(server, serverSalt, labelRTP, key[:])
	derive(server, serverSalt, labelRTPSalt, k.rtpSalt[:])
	derive(server, serverSalt, labelRTCP, k.out.key[:])
	derive(server, serverSalt, labelRTCPSalt, k.out.salt[:])
	derive(client, clientSalt, labelRTCP, k.in.key[:])
	derive(client, clientSalt, labelRTCPSalt, k.in.salt[:])
	if k.rtp, err = gcmOf(key[:]); err != nil {
		return nil, err
	}
	return k, nil
}

// materialSize is how many bytes of keys each profile needs.
func materialSize(gcm bool) int {
	if gcm {
		return 2 * (keySize + saltSize)
	}
	return 2 * (16 + 14)
}

// sealRTP seals a packet whose header stands in the first bytes of b: payload goes in encrypted behind it. index is the sequence number
// with its roll-overs; the same index must always have the same payload. iv is the caller's scratch. It gives the length.
func (k *keyring) sealRTP(b, payload []byte, ssrc uint32, index uint64, iv *[saltSize]byte) (int, error) {
	if k.rtp == nil {
		n := copy(b[rtpHeader:], payload)
		out, err := k.old.out.EncryptRTP(b[:0], b[:rtpHeader+n], nil)
		if err != nil {
			return 0, err
		}
		return copy(b, out), nil
	}
	*iv = k.rtpSalt
	xor32(iv[2:], ssrc)
	xor32(iv[6:], uint32(index>>16))
	iv[10] ^= byte(index >> 8)
	iv[11] ^= byte(index)
	return rtpHeader + len(k.rtp.Seal(b[rtpHeader:rtpHeader], iv[:], payload, b[:rtpHeader])), nil
}

func xor32(b []byte, v uint32) { binary.BigEndian.PutUint32(b, binary.BigEndian.Uint32(b)^v) }

// nonce is that of RFC 7714, 9.1.
func (r *rtcpKeys) nonce(ssrc, index uint32) [saltSize]byte {
	iv := r.salt
	xor32(iv[2:], ssrc)
	xor32(iv[8:], index)
	return iv
}

// sealRTCP seals the first n bytes of b in place and gives the new length (RFC 7714, 9.2). index counts the packets, from 0.
func (k *keyring) sealRTCP(b []byte, n int, index uint32) (int, error) {
	if k.rtp == nil {
		out, err := k.old.out.EncryptRTCP(nil, b[:n], nil)
		if err != nil {
			return 0, err
		}
		return copy(b, out), nil
	}
	aead, err := gcmOf(k.out.key[:])
	if err != nil {
		return 0, err
	}
	iv := k.out.nonce(binary.BigEndian.Uint32(b[4:]), index)
	var aad [8 + rtcpTrailer]byte
	copy(aad[:], b[:8])
	binary.BigEndian.PutUint32(aad[8:], index|1<<31)
	sealed := aead.Seal(b[8:8], iv[:], b[8:n], aad[:])
	end := 8 + len(sealed)
	copy(b[end:], aad[8:])
	return end + rtcpTrailer, nil
}

// window tells replays from what is new (RFC 3711, 3.3.2).
type window struct {
	top  uint32 // the highest index accepted, plus one; 0 before the first
	seen uint64 // bit i: top-1-i was accepted
}

func (w *window) fresh(index uint32) bool {
	if index >= w.top {
		return true
	}
	back := w.top - 1 - index
	return back < 64 && w.seen>>back&1 == 0
}

func (w *window) accept(index uint32) {
	if index >= w.top {
		if shift := index + 1 - w.top; w.top == 0 || shift >= 64 {
			w.seen = 0
		} else {
			w.seen <<= shift
		}
		w.top = index + 1
		w.seen |= 1
		return
	}
	w.seen |= 1 << (w.top - 1 - index)
}

// openRTCP opens an SRTCP packet in place, once.
func (k *keyring) openRTCP(b []byte, w *window) ([]byte, error) {
	if k.rtp == nil {
		return k.old.in.DecryptRTCP(nil, b, nil)
	}
	if len(b) < 8+tagSize+rtcpTrailer {
		return nil, errForged
	}
	end := len(b) - rtcpTrailer
	trailer := binary.BigEndian.Uint32(b[end:])
	index := trailer &^ (1 << 31)
	if trailer>>31 == 0 || !w.fresh(index) { // everybody encrypts
		return nil, errForged
	}
	aead, err := gcmOf(k.in.key[:])
	if err != nil {
		return nil, err
	}
	iv := k.in.nonce(binary.BigEndian.Uint32(b[4:]), index)
	var aad [8 + rtcpTrailer]byte
	copy(aad[:], b[:8])
	copy(aad[8:], b[end:])
	plain, err := aead.Open(b[8:8], iv[:], b[8:end], aad[:])
	if err != nil {
		return nil, errForged
	}
	w.accept(index)
	return b[:8+len(plain)], nil
}
