package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"earshot/internal/event"
)

// A crowd is a load generator's simulated listeners. One that doesn't come from this machine itself asks first whether it may, at
// an address where any server can be made to answer; here it may with the operator's key, or with a token that the operator made.
// A token says itself for how many listeners and until when it is good, under a signature: nothing is stored, so none can be taken
// back, and none is good for more than a day.
const (
	consentPath  = "/.well-known/earshot-crowd"
	crowdToken   = SecretKind("ec_")
	crowdLife    = time.Hour
	crowdMaxLife = 24 * time.Hour
	maxCrowd     = 10_000_000
	crowdMAC     = 16 // bytes: half of SHA-256
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

type crowdIn struct {
	Body struct {
		Listeners int        `json:"listeners" minimum:"1" maximum:"10000000" doc:"How many may come at once."`
		Expires   *time.Time `json:"expires,omitempty" doc:"At most a day ahead; without it an hour."`
	}
}

type crowdOut struct {
	Body struct {
		Token     string    `json:"token" doc:"For earshot crowd --token. It cannot be taken back."`
		Listeners int       `json:"listeners"`
		Expires   time.Time `json:"expires"`
	}
}

func (a api) crowds() {
	add(a, operation{
		id: "create-crowd-token", method: http.MethodPost, path: "/api/v1/crowd-tokens", tag: tagOperation, summary: "Consent to a load test",
		about: "Whoever holds the token may send so many simulated listeners (earshot crowd) until it expires.",
		need:  event.Operate, status: http.StatusCreated,
	}, a.web.createCrowdToken)
}

func (s *web) createCrowdToken(_ context.Context, _ call, in *crowdIn) (*crowdOut, error) {
	if len(s.cfg.CrowdKey) == 0 {
		return nil, event.Unavailable("This server has no key to sign tokens with.", errors.New("no crowd key is configured"))
	}
	now := s.now()
	expires := now.Add(crowdLife)
	if in.Body.Expires != nil {
		expires = *in.Body.Expires
	}
	if !expires.After(now) {
		return nil, event.Invalid("expires", "This moment has passed already.")
	}
	if expires.After(now.Add(crowdMaxLife)) {
		return nil, event.Invalid("expires", "A token is good for a day at most.")
	}
	out := &crowdOut{}
	out.Body.Listeners, out.Body.Expires = in.Body.Listeners, expires.UTC().Truncate(time.Second)
	out.Body.Token = signCrowd(s.cfg.CrowdKey, in.Body.Listeners, expires)
	return out, nil
}

// signCrowd writes a token: listeners, expiry in Unix seconds, HMAC-SHA256.
func signCrowd(key []byte, listeners int, expires time.Time) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(listeners))
	b = binary.BigEndian.AppendUint64(b, uint64(expires.Unix()))
	return string(crowdToken) + base32Lower.EncodeToString(append(b, crowdSum(key, b)...))
}

func crowdSum(key, b []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("earshot crowd token\x00"))
	m.Write(b)
	return m.Sum(nil)[:crowdMAC]
}

// openCrowd gives for how many listeners a token is good.
func openCrowd(key []byte, token string, now time.Time) (listeners int, ok bool) {
	text, found := strings.CutPrefix(token, string(crowdToken))
	b, err := base32Lower.DecodeString(text)
	if !found || err != nil || len(b) != 12+crowdMAC || len(key) == 0 {
		return 0, false
	}
	if !hmac.Equal(b[12:], crowdSum(key, b[:12])) || now.Unix() >= int64(binary.BigEndian.Uint64(b[4:])) {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(b)), true
}

// consent answers how large a crowd the bearer may send.
func (s *web) consent(w http.ResponseWriter, r *http.Request) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	secret = strings.TrimSpace(secret)
	listeners, ok := 0, false
	if strings.EqualFold(scheme, "Bearer") && len(secret) <= maxSecret {
		if listeners, ok = openCrowd(s.cfg.CrowdKey, secret, s.now()); !ok && s.cfg.OperatorKeyHash != "" {
			listeners, ok = maxCrowd, sameHash(HashSecret(secret), s.cfg.OperatorKeyHash)
		}
	}
	if !ok {
		s.fail(w, r, newProblem(event.CodeUnauthorized, "Only with the operator's consent: a token that is not expired.").because(reasonCredential))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(struct {
		Listeners int `json:"listeners"`
	}{listeners})
}
