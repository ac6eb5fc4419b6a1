package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// parse reads a command line as main does, with an environment of its own.
func parse(args, environ []string) (*cli, *settings, *kong.Context, error) {
	var c cli
	s := newSettings(environ)
	parser := kong.Must(&c, append(s.options(), kong.Name("earshot"), kong.Vars{"version": "test"})...)
	k, err := parser.Parse(args)
	if err == nil {
		s.parsed(k)
	}
	return &c, s, k, err
}

func writeSettings(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "earshot.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each setting is said in every set of places at once, and each time the strongest must win.
func TestPrecedence(t *testing.T) {
	for _, c := range []struct {
		flag                      string
		byDefault                 string
		inFile, file              string // what the file says, and what it means
		inEnvironment, byFlag     string
		environmentMeans, argWant string // where they differ from what is written
	}{
		{flag: "listen", byDefault: "127.0.0.1:8080", inFile: "127.0.0.1:1", file: "127.0.0.1:1", inEnvironment: "127.0.0.1:2", byFlag: "127.0.0.1:3"},
		{flag: "udp", byDefault: "127.0.0.1:8443", inFile: `":1"`, file: ":1", inEnvironment: ":2", byFlag: ":3"},
		{flag: "demo", byDefault: "false", inFile: "true", file: "true", inEnvironment: "false", byFlag: "true"},
		{flag: "log-level", byDefault: "info", inFile: "debug", file: "debug", inEnvironment: "warn", byFlag: "error"},
		{flag: "nats-replicas", byDefault: "0", inFile: "1", file: "1", inEnvironment: "3", byFlag: "5"},
		{
			flag: "advertise", byDefault: "[]", inFile: "[192.0.2.1, '2001:db8::1']", file: "[192.0.2.1 2001:db8::1]",
			inEnvironment: "192.0.2.2,192.0.2.3", environmentMeans: "[192.0.2.2 192.0.2.3]", byFlag: "192.0.2.4", argWant: "[192.0.2.4]",
		},
		{flag: "node-roles", byDefault: "[]", inFile: "stage,edge", file: "[stage edge]", inEnvironment: "edge", environmentMeans: "[edge]", byFlag: "stage", argWant: "[stage]"},
		{flag: "nats", byDefault: "", inFile: "nats://a:1", file: "nats://a:1", inEnvironment: "nats://b:2", byFlag: "nats://c:3"},
	} {
		path := writeSettings(t, fmt.Sprintf("# a comment\n\n%s: %s\n", c.flag, c.inFile))
		for mask := range 8 {
			args, environ := []string{"serve"}, []string{"PATH=/bin", variable(c.flag) + "="}
			want, from := c.byDefault, ""
			if mask&1 != 0 {
				environ = append(environ, "EARSHOT_CONFIG="+path)
				want, from = c.file, path+", line 3"
			}
			if mask&2 != 0 {
				environ = append(environ, variable(c.flag)+"="+c.inEnvironment)
				want, from = c.inEnvironment, variable(c.flag)
				if c.environmentMeans != "" {
					want = c.environmentMeans
				}
			}
			if mask&4 != 0 {
				args = append(args, "--"+c.flag+"="+c.byFlag)
				want, from = c.byFlag, "--"+c.flag
				if c.argWant != "" {
					want = c.argWant
				}
			}
			_, s, k, err := parse(args, environ)
			if err != nil {
				t.Errorf("%v %v: %v", args, environ, err)
				continue
			}
			i := slices.IndexFunc(k.Selected().Flags, func(f *kong.Flag) bool { return f.Name == c.flag })
			if got := fmt.Sprint(k.Selected().Flags[i].Target.Interface()); got != want {
				t.Errorf("%v %v: %s is %s, want %s", args, environ, c.flag, got, want)
			}
			if got := s.origins[c.flag].from; got != from {
				t.Errorf("%v %v: %s comes from %q, want %q", args, environ, c.flag, got, from)
			}
		}
	}
}

// --config beats EARSHOT_CONFIG, and nothing but what is named is read.
func TestWhichFile(t *testing.T) {
	one, two := writeSettings(t, "log-level: debug"), writeSettings(t, "log-level: warn\n")
	c, _, _, err := parse([]string{"serve", "--config", two}, []string{"EARSHOT_CONFIG=" + one})
	if err != nil || c.Serve.LogLevel != "warn" {
		t.Errorf("%s, %v", c.Serve.LogLevel, err)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n", "listen:\nadvertise: []\ncert: ~\n"} {
		c, s, _, err := parse([]string{"serve", "--config", writeSettings(t, empty)}, nil)
		if err != nil || c.Serve.Listen != "127.0.0.1:8080" || s.said("listen") || s.said("advertise") {
			t.Errorf("%q: %s, %v", empty, c.Serve.Listen, err)
		}
	}
	if _, _, _, err := parse([]string{"crowd", "--url", "http://127.0.0.1/e/x"}, []string{"EARSHOT_LISTNE=1", "EARSHOT_CONFIG=/nowhere"}); err != nil {
		t.Errorf("the settings of serve are no matter of crowd: %v", err)
	}
}

func TestRefusedSettings(t *testing.T) {
	for _, c := range []struct {
		name, file string
		environ    []string
		says       []string
	}{
		{name: "unknown key", file: "log-level: info\nlissten: x", says: []string{"line 2", `"lissten"`, "did you mean listen?"}},
		{name: "underscores", file: "node_roles: stage", says: []string{"did you mean node-roles?"}},
		{name: "nothing like it", file: "qqqqqqqqqqqqqqqqqqqqqqqqqqq: 1", says: []string{"is no setting;", "earshot config"}},
		{name: "help is no setting", file: "help: true", says: []string{`"help" is no setting`}},
		{name: "version is no setting", file: "version: true", says: []string{`"version" is no setting`}},
		{name: "another command's", file: "listeners: 3", says: []string{`"listeners" is no setting`}},
		{name: "a file in a file", file: "config: other.yaml", says: []string{"line 1", "--config or EARSHOT_CONFIG"}},
		{name: "twice", file: "listen: a\nudp: b\nlisten: c", says: []string{"line 3", "line 1"}},
		{name: "tree", file: "listen:\n  host: a", says: []string{"line 2", "listen wants one plain value"}},
		{name: "list where one is wanted", file: "udp: [a, b]", says: []string{"udp wants one plain value"}},
		{name: "brackets of IPv6", file: "listen: [::]:443", says: []string{"not YAML", "put quotes"}},
		{name: "list of lists", file: "advertise: [[a]]", says: []string{"advertise is a list of plain values"}},
		{name: "alias", file: "listen: &x a\nudp: *x", says: []string{"line 2", "udp wants one plain value"}},
		{name: "key that is a list", file: "[a, b]: c", says: []string{"line 1"}},
		{name: "no settings", file: "just words", says: []string{"line 1", "a setting a line"}},
		{name: "a list on top", file: "- a", says: []string{"line 1", "a setting a line"}},
		{name: "two documents", file: "udp: a\n---\nudp: b", says: []string{"more than one document"}},
		{name: "not YAML", file: "listen: 'a", says: []string{"not YAML"}},
		{name: "binary", file: "\x00\x01\x02", says: []string{"not YAML"}},
		{name: "huge", file: strings.Repeat("#", maxFile+1), says: []string{"1 MiB"}},
		{name: "a word for a number", file: "udp: a\nnats-replicas: three", says: []string{"--nats-replicas", "three", "earshot.yaml, line 2"}},
		{name: "not one of", file: "log-format: xml", says: []string{"--log-format", `"text","json"`, "xml", "earshot.yaml, line 1"}},
		{name: "not one of, by the environment", environ: []string{"EARSHOT_LOG_LEVEL=loud"}, says: []string{"--log-level", "loud", "comes from EARSHOT_LOG_LEVEL"}},
		{name: "unknown variable", environ: []string{"EARSHOT_LISTNE=x"}, says: []string{"EARSHOT_LISTNE", "did you mean EARSHOT_LISTEN?"}},
		{name: "small letters", environ: []string{"EARSHOT_listen=x"}, says: []string{"did you mean EARSHOT_LISTEN?"}},
		{name: "no truth", environ: []string{"EARSHOT_DEMO=perhaps"}, says: []string{"--demo", "perhaps", "comes from EARSHOT_DEMO"}},
	} {
		args := []string{"serve"}
		if c.file != "" {
			args = append(args, "--config", writeSettings(t, c.file))
		}
		_, s, _, err := parse(args, c.environ)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		for _, word := range c.says {
			if !strings.Contains(s.explain(err).Error(), word) {
				t.Errorf("%s: %q does not say %q", c.name, s.explain(err), word)
			}
		}
	}
	if _, _, _, err := parse([]string{"serve", "--config", "/nowhere/at/all"}, nil); err == nil || !strings.Contains(err.Error(), "--config /nowhere/at/all: want a file") {
		t.Errorf("a missing file: %v", err)
	}
}

// What Kubernetes says of a service with this name, and what another command is told, is nobody's mistake.
func TestForeignVariables(t *testing.T) {
	_, _, _, err := parse([]string{"serve"}, []string{
		"EARSHOT_SERVICE_HOST=10.0.0.1", "EARSHOT_SERVICE_PORT=80", "EARSHOT_SERVICE_PORT_HTTP=80", "EARSHOT_PORT=tcp://10.0.0.1:80",
		"EARSHOT_PORT_80_TCP=tcp://10.0.0.1:80", "EARSHOT_PORT_80_TCP_PROTO=tcp", "EARSHOT_PORT_80_TCP_PORT=80", "EARSHOT_PORT_8443_UDP_ADDR=10.0.0.1",
		"EARSHOT_CROWD_TOKEN=et_x", "EARSHOT_EMPTY=", "EARSHOTS=1", "earshot_listen=1",
	})
	if err != nil {
		t.Error(err)
	}
}

func TestHide(t *testing.T) {
	for text, want := range map[string]string{
		"nats://127.0.0.1:4222":                     "nats://127.0.0.1:4222",
		"nats://stage:hunter2@a:4222":               "nats://stage:...@a:4222",
		"nats://t0ken@a:4222":                       "nats://...@a:4222",
		"tls://u:p@a:1, tls://v:q%40r@b:2,nats://c": "tls://u:...@a:1,tls://v:...@b:2,nats://c",
		"nats://u:p%zz@a":                           "...",
	} {
		if got := hide(text, "url"); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := hide("hunter2", ""); got != "..." {
		t.Error(got)
	}
}

// What `earshot config` prints says the same again as a file, with nothing secret in it.
func TestConfigIsAFile(t *testing.T) {
	args := []string{
		"config", "--listen", ":8443", "--advertise", "192.0.2.1,2001:db8::1", "--udp", "[::]:9", "--data", "/a: b #c", "--demo",
		"--nats", "nats://u:hunter2@a:4222", "--log-level", "debug",
	}
	_, s, k, err := parse(args, []string{"EARSHOT_NODE_ROLES=edge"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	printSettings(&out, k.Selected().Flags, s, nil)
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a password is shown:\n%s", &out)
	}
	for _, line := range []string{"node-roles: [edge]  # EARSHOT_NODE_ROLES", `log-format: text  # default`, "#cert:  # not set", "log-level: debug  # --log-level", "demo: true  # --demo"} {
		if !strings.Contains(out.String(), "\n"+line+"\n") {
			t.Errorf("there is no line %q in\n%s", line, &out)
		}
	}
	again, _, k2, err := parse([]string{"config", "--config", writeSettings(t, out.String())}, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, &out)
	}
	for i, f := range k.Selected().Flags {
		g := k2.Selected().Flags[i]
		if a, b := fmt.Sprint(f.Target), fmt.Sprint(g.Target); a != b && f.Name != "nats" && f.Name != configFlag {
			t.Errorf("%s was %s, and is %s", f.Name, a, b)
		}
	}
	if again.Config.Nodes.NATS != "" {
		t.Error("what is hidden is said all the same")
	}
}

// Whatever the file holds, it is read or refused; and what is read, are settings.
func FuzzSettingsFile(f *testing.F) {
	for _, text := range []string{"listen: a", "advertise: [a, 'b']\n", "listen: &a b\nudp: *a", "? [a]\n: b", "a: {b: c}", "---\n...\n", "<<: {listen: a}", "listen: !!binary aGk=", "listen: |\n a\n b"} {
		f.Add([]byte(text))
	}
	_, _, k, err := parse([]string{"serve"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	names := map[string]*kong.Flag{}
	for _, fl := range k.Selected().Flags {
		names[fl.Name] = fl
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := parseFile(b, names)
		if err != nil {
			return
		}
		for name, w := range values {
			if names[name] == nil || name == configFlag || len(w.words) == 0 || w.line < 1 || w.list && !names[name].IsSlice() {
				t.Errorf("%s: %+v", name, w)
			}
		}
	})
}
