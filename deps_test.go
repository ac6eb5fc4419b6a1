// Package earshot holds what is true of the repository as a whole.
package earshot

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// floors orders the packages: each may import only those on lower floors. Packages on one floor do not know each other.
var floors = [][]string{
	{"event", "backup", "turnstile", "crowd/wire", "crowd/tally"},
	{"timeline", "mix", "observatory"},
	{"stage", "demo", "peer", "radio"},
	{"fan/sweep", "fan/whep"},
	{"rtc", "fan", "cluster", "archive", "certs", "web", "crowd"},
	{"app"},
}

// rigs are tests' own: they stand on no floor, so nothing that does may import them.
var rigs = []string{"rig", "rig/trace", "rig/broker", "rig/acme"}

// bans keep a foreign dependency inside the packages that own it. A path ending in / stands for all below it.
var bans = []struct {
	path   string
	only   []string
	reason string
}{
	{"github.com/pion/", []string{"rtc", "fan/whep", "peer", "rig", "crowd"}, "WebRTC is a way in and a way out; what is said and heard must not know it"},
	{"github.com/nats-io/", []string{"cluster", "rig/broker"}, "one package owns what is stored and shared, so that the engine can be judged, and changed, there"},
	{"github.com/hraban/opus", []string{"mix"}, "cgo stays behind one door"},
	{"github.com/caddyserver/", []string{"certs"}, "how a certificate is got is told, and can be changed, in one place"},
	{"go.uber.org/", []string{"certs"}, "we log by slog; certs translates"},
	{"github.com/letsencrypt/", []string{"rig/acme"}, "an authority to test against"},
	{"gocloud.dev/", []string{"archive"}, "segments at rest are the archive's"},
	{"github.com/gobwas/", []string{"fan", "fan/sweep"}, "listeners' sockets are fan's"},
	{"github.com/danielgtaylor/huma/", []string{"web"}, "the API's library must not shape the domain"},
	{"github.com/prometheus/", []string{"rtc", "fan", "cluster", "archive", "certs", "web", "app"}, "the core counts in plain structs; adapters publish"},
	{"net/http", []string{"rtc", "fan", "fan/sweep", "cluster", "archive", "web", "app", "crowd", "rig", "rig/acme"}, "the core runs without a network"},
	{"log/slog", []string{"rtc", "fan", "fan/whep", "peer", "radio", "cluster", "archive", "certs", "web", "app", "rig"}, "the core answers errors and counts; it does not talk"},
	{"os/exec", []string{"radio", "rig", "crowd"}, "other programs are run by those whose business they are"},
	{"testing", rigs, "production code does not carry its tests"},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	floor := map[string]int{}
	for i, names := range floors {
		for _, n := range names {
			floor[n] = i
		}
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name, internal := strings.CutPrefix(p.ImportPath, "earshot/internal/")
		if !internal {
			continue
		}
		seen++
		here, placed := floor[name]
		if !placed && !slices.Contains(rigs, name) {
			t.Errorf("internal/%s stands on no floor: add it to floors, with thought", name)
		}
		for _, imp := range p.Imports {
			if below, ok := strings.CutPrefix(imp, "earshot/internal/"); ok && placed {
				if at, known := floor[below]; !known || at >= here {
					t.Errorf("internal/%s imports internal/%s: imports point down only, and neighbours meet in app", name, below)
				}
			}
			for _, b := range bans {
				hit := imp == b.path || strings.HasSuffix(b.path, "/") && strings.HasPrefix(imp, b.path)
				if hit && !slices.Contains(b.only, name) {
					t.Errorf("internal/%s imports %s: %s", name, imp, b.reason)
				}
			}
		}
	}
	if seen < 8 {
		t.Fatalf("saw only %d internal packages", seen)
	}
}
