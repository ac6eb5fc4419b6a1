package whep

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"hash/crc32"
)

// STUN as ICE uses it (RFC 8489; RFC 8445, 7): binding requests, and answers to them, theirs and ours. Nothing here allocates or keeps anything: checks
// are what strangers can send without end.
const (
	stunHeader  = 20
	stunCookie  = 0x2112a442
	stunRequest = 0x0001
	stunHint    = 0x0011 // a binding indication, which keeps a path open and is not answered
	stunSuccess = 0x0101

	attrUsername    = 0x0006
	attrIntegrity   = 0x0008
	attrIntegrity2  = 0x001c // MESSAGE-INTEGRITY-SHA256
	attrXORMapped   = 0x0020
	attrPriority    = 0x0024
	attrNominated   = 0x0025 // USE-CANDIDATE
	attrFingerprint = 0x8028
	attrControlled  = 0x8029

	macSize         = 20
	fingerprintXOR  = 0x5354554e
	stunAnswerMax   = stunHeader + 24 + 4 + macSize + 8
	fingerprintSize = 8

	priorityReflexive = 110<<24 | 0xffff<<8 | 0xff // of a peer-reflexive candidate (RFC 8445, 5.1.2)
)

// check is what a STUN message says, in the message's own bytes.
type check struct {
	raw       []byte
	local     []byte // the first half of the user name: whose connection it is
	mac       int    // where MESSAGE-INTEGRITY begins; 0: it has none of SHA-1
	request   bool
	reply     bool // a success response: to a question of ours, if it is anything
	nominates bool
	printed   bool // it has a fingerprint, and that is right
}

// judge sorts a packet by its first byte (RFC 7983, 7). STUN must be a binding request, indication or success with the magic
// cookie, whole attributes, message integrity, and but for the success a user name (RFC 8489, 5 and 14); whether they are right is said later.
func judge(b []byte) stray {
	if len(b) == 0 {
		return unknown
	}
	switch c := b[0]; {
	case c >= 20 && c <= 63 && len(b) >= 13: // a DTLS record's header
		return keep
	case c >= 128 && c <= 191 && len(b) >= 8: // RTP, RTCP
		return keep
	case c > 3:
		return unknown
	}
	_, why := readCheck(b)
	return why
}

// readCheck takes a STUN message apart.
func readCheck(b []byte) (check, stray) {
	if len(b) < stunHeader || len(b)%4 != 0 || int(b[2])<<8|int(b[3]) != len(b)-stunHeader || binary.BigEndian.Uint32(b[4:]) != stunCookie {
		return check{}, brokenST
	}
	typ := int(b[0])<<8 | int(b[1])
	if typ != stunRequest && typ != stunHint && typ != stunSuccess {
		return check{}, brokenST
	}
	c := check{raw: b, request: typ == stunRequest, reply: typ == stunSuccess}
	named, signed := false, false
	for at := stunHeader; at < len(b); {
		if len(b)-at < 4 {
			return check{}, brokenST
		}
		typ, n := int(b[at])<<8|int(b[at+1]), int(b[at+2])<<8|int(b[at+3])
		whole := 4 + (n+3)&^3
		if whole > len(b)-at {
			return check{}, brokenST
		}
		value := b[at+4 : at+4+n]
		// What follows the integrity is not covered by it, and only the fingerprint may (14.5).
		switch typ {
		case attrUsername:
			if !signed && !named {
				named = true
				c.local = value
				for i, v := range value {
					if v == ':' {
						c.local = value[:i]
						break
					}
				}
			}
		case attrNominated:
			c.nominates = c.nominates || !signed
		case attrIntegrity:
			if !signed && n == macSize {
				c.mac = at
			}
			signed = true
		case attrIntegrity2:
			signed = true
		case attrFingerprint:
			if at+fingerprintSize != len(b) || n != 4 || binary.BigEndian.Uint32(value) != crc32.ChecksumIEEE(b[:at])^fingerprintXOR {
				return check{}, brokenST
			}
			c.printed = true
		}
		at += whole
	}
	if !named && !c.reply || !signed {
		return check{}, unsigned
	}
	return c, keep
}

// transaction is the beginning of the transaction's number, which is random.
func (c *check) transaction() uint32 { return binary.BigEndian.Uint32(c.raw[8:]) }

// hmacSHA1 computes HMACs (RFC 2104) of short keys in memory of its own.
type hmacSHA1 struct {
	inner, outer hash.Hash
	pad          [sha1.BlockSize]byte
	head         [4]byte
	sum          [2 * sha1.Size]byte
}

// shortKey gives the key by which the HMAC of a password is made: the password, or if it is longer than a block, its hash (RFC 2104, 2).
func shortKey(password string) []byte {
	if len(password) <= sha1.BlockSize {
		return []byte(password)
	}
	sum := sha1.Sum([]byte(password))
	return sum[:]
}

func newHMAC() *hmacSHA1 { return &hmacSHA1{inner: sha1.New(), outer: sha1.New()} }

// of gives the HMAC of a STUN message's first n bytes under the length that its header would have if the integrity ended it (RFC 8489, 14.5).
func (h *hmacSHA1) of(key, message []byte, n int) []byte {
	for i, flip := range [...]byte{0x36, 0x5c} {
		clear(h.pad[:])
		copy(h.pad[:], key)
		for j := range h.pad {
			h.pad[j] ^= flip
		}
		d := h.inner
		if i == 1 {
			d = h.outer
		}
		d.Reset()
		d.Write(h.pad[:])
	}
	copy(h.head[:], message[:4])
	binary.BigEndian.PutUint16(h.head[2:], uint16(n-stunHeader+4+macSize))
	h.inner.Write(h.head[:])
	h.inner.Write(message[4:n])
	h.outer.Write(h.inner.Sum(h.sum[:0]))
	return h.outer.Sum(h.sum[:0])
}

// authentic says whether the message was signed with the key.
func (c *check) authentic(h *hmacSHA1, key []byte) bool {
	if c.mac == 0 {
		return false
	}
	return subtle.ConstantTimeCompare(h.of(key, c.raw, c.mac), c.raw[c.mac+4:c.mac+4+macSize]) == 1
}

// answer writes the success response (RFC 8445, 7.3) into b and gives its length: 0 if it would be longer than the request, which no ICE
// agent's is. So nobody is sent more than was spent in their name.
func (c *check) answer(b []byte, h *hmacSHA1, key []byte, from where) int {
	address := 20
	if from.is4() {
		address = 8
	}
	size := stunHeader + 4 + address + 4 + macSize
	if c.printed {
		size += fingerprintSize
	}
	if size > len(c.raw) {
		return 0
	}
	b = b[:size]
	binary.BigEndian.PutUint16(b, stunSuccess)
	binary.BigEndian.PutUint16(b[2:], uint16(size-stunHeader))
	copy(b[4:stunHeader], c.raw[4:])
	at := b[stunHeader:]
	binary.BigEndian.PutUint16(at, attrXORMapped)
	binary.BigEndian.PutUint16(at[2:], uint16(address))
	at[4], at[5] = 0, 2
	binary.BigEndian.PutUint16(at[6:], from.port^(stunCookie>>16))
	ip := from.ip[:]
	if from.is4() {
		at[5], ip = 1, ip[12:]
	}
	for i, v := range ip {
		at[8+i] = v ^ c.raw[4+i] // cookie, then transaction
	}
	sign(b, h, key, stunHeader+4+address)
	return size
}

// sign writes the integrity at mac, and the fingerprint if there is room.
func sign(b []byte, h *hmacSHA1, key []byte, mac int) {
	binary.BigEndian.PutUint16(b[mac:], attrIntegrity)
	binary.BigEndian.PutUint16(b[mac+2:], macSize)
	copy(b[mac+4:], h.of(key, b, mac))
	if end := mac + 4 + macSize; len(b) > end {
		binary.BigEndian.PutUint16(b[end:], attrFingerprint)
		binary.BigEndian.PutUint16(b[end+2:], 4)
		binary.BigEndian.PutUint32(b[end+4:], crc32.ChecksumIEEE(b[:end])^fingerprintXOR)
	}
}

// tid is the number of a transaction.
type tid [12]byte

// askSize is the length of a binding request to whom theirs is the half of the user name; 344 at the most.
func askSize(theirs string) int {
	return stunHeader + 4 + (len(theirs)+1+len(ufrag{})+3)&^3 + 8 + 12 + 4 + macSize + fingerprintSize
}

// ask writes a binding request of a controlled agent (RFC 8445, 7.1.1) into b and gives its length.
// theirs and ours are the halves of the user name, key is made of the other side's password, tie breaks ties of roles.
func ask(b []byte, h *hmacSHA1, theirs string, ours ufrag, key []byte, t tid, tie [8]byte) int {
	name := len(theirs) + 1 + len(ours)
	size := askSize(theirs)
	b = b[:size]
	clear(b)
	binary.BigEndian.PutUint16(b, stunRequest)
	binary.BigEndian.PutUint16(b[2:], uint16(size-stunHeader))
	binary.BigEndian.PutUint32(b[4:], stunCookie)
	copy(b[8:], t[:])
	at := b[stunHeader:]
	binary.BigEndian.PutUint16(at, attrUsername)
	binary.BigEndian.PutUint16(at[2:], uint16(name))
	n := 4 + copy(at[4:], theirs)
	at[n] = ':'
	copy(at[n+1:], ours[:])
	at = at[4+(name+3)&^3:]
	binary.BigEndian.PutUint16(at, attrPriority)
	binary.BigEndian.PutUint16(at[2:], 4)
	binary.BigEndian.PutUint32(at[4:], priorityReflexive)
	binary.BigEndian.PutUint16(at[8:], attrControlled)
	binary.BigEndian.PutUint16(at[10:], 8)
	copy(at[12:], tie[:])
	sign(b, h, key, size-fingerprintSize-macSize-4)
	return size
}
