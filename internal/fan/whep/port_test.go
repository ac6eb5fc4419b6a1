package whep

import (
	"testing"

	"github.com/pion/stun/v4"
)

func FuzzJudge(f *testing.F) {
	f.Add([]byte{})
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw)
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("a:b"), stun.NewShortTermIntegrity("c"), stun.Fingerprint).Raw)
	f.Add([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		verdict := judge(b)
		if verdict < keep || verdict >= nStrays {
			t.Fatalf("verdict %d", verdict)
		}
		if len(b) == 0 || b[0] > 3 || verdict != keep {
			return
		}
		// STUN that passes is STUN to the library too, and has what was promised.
		m := &stun.Message{Raw: append([]byte(nil), b...)}
		if err := m.Decode(); err != nil {
			t.Fatalf("passed %x: %v", b, err)
		}
		if !m.Contains(stun.AttrUsername) || m.Type.Method != stun.MethodBinding {
			t.Fatalf("passed %v", m)
		}
	})
}
