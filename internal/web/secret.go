package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"strings"

	"earshot/internal/event"
)

// SecretKind is the prefix of a secret, so that one found in the wrong place says what it opens, and scanners know it.
type SecretKind string

// The kinds of secrets.
const (
	OperatorSecret SecretKind = "eo_"
	InviteSecret   SecretKind = "ei_"
	sessionSecret  SecretKind = "es_"
)

// maxSecret bounds what is hashed as a secret; ours have 29 characters.
const maxSecret = 256

// NewSecret makes one of 130 random bits, in characters that survive a URL's fragment, a shell and a phone call.
func NewSecret(kind SecretKind) string { return string(kind) + strings.ToLower(rand.Text()) }

// HashSecret is how a secret is stored and compared: its SHA-256 in hex. Secrets are random, so no slow hash is needed.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// sameHash compares two of HashSecret's results in constant time.
func sameHash(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func newSalt() (salt [16]byte) {
	rand.Read(salt[:]) // never fails (crypto/rand)
	return salt
}

func newID(prefix string) string { return prefix + strings.ToLower(rand.Text())[:18] }

// Person IDs are public (cues carry them), so they are hashes of what they stand for. The first eight characters after "p_" are the
// invite's, whose revocation can then find its people on stage without a register of who came through what.
func personID(inviteID, who string) string {
	return personTag(inviteID) + short("person\x00" + inviteID + "\x00" + who)[:10]
}

// programID is the ID of a program that sends an invite's secret. After the invite's tag comes a digit that no other ID has there: who
// bans one program of an invite bans all that it could call itself. The program of a host's invite without a name is the host.
func programID(i event.Invite, alias string) string {
	switch {
	case alias != "":
		alias = "alias:" + alias
	case i.Role == event.Host:
		return personID(i.ID, "")
	}
	return programTag(i.ID) + short("person\x00" + i.ID + "\x00" + alias)[:9]
}

func programTag(inviteID string) string { return personTag(inviteID) + "0" }

func personTag(inviteID string) string { return "p_" + short("invite\x00" + inviteID)[:8] }

func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}
