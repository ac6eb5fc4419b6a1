package web_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"earshot/internal/event"
)

// TestScripts runs the HTTP contracts in testdata: what a stranger with PROTOCOL.md in hand may rely on, written as they would try it.
// Each script has a server of its own. The commands are:
//
//	http METHOD PATH [-b SECRET] [-j JAR] [-H 'Name: value'] [-d BODY | -f FILE | -n BYTES | -chunked BYTES] [-t TYPE]
//	status CODE               of the last response
//	header NAME REGEXP        ! header NAME: it is absent
//	json PATH VALUE           a value of the JSON body, such as people.0.name; ! json PATH: it is absent
//	problem STATUS CODE [FIELD]
//	keep VARIABLE PATH        a value of the JSON body for later lines; PATH "@Name" takes a header
//	stages still|running      whether rooms opened from now on make frames by themselves
//	frames SLUG N             N frames for a still room
//	advance DURATION          the server's clock
//	ready [TEXT]              with a text: the server is not ready, and says so
//	logged REGEXP             ! logged: the log does not have it
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			w := newWorld(failNow{}, env.WorkDir)
			env.Defer(w.close)
			env.Values["world"] = w
			env.Values["last"] = &reply{}
			env.Values["jars"] = map[string]map[string]string{}
			env.Setenv("OPERATOR", w.operator)
			env.Setenv("URL", w.server.URL)
			now := time.Now().UTC().Truncate(time.Second)
			env.Setenv("IN_1H", now.Add(time.Hour).Format(time.RFC3339))
			env.Setenv("IN_2H", now.Add(2*time.Hour).Format(time.RFC3339))
			env.Setenv("AGO_1H", now.Add(-time.Hour).Format(time.RFC3339))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"http": doHTTP, "status": doStatus, "header": doHeader, "json": doJSON, "problem": doProblem, "keep": doKeep,
			"stages": func(ts *testscript.TestScript, _ bool, args []string) {
				w := worldOf(ts)
				w.mu.Lock()
				defer w.mu.Unlock()
				w.still = args[0] == "still"
			},
			"frames": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[1])
				ts.Check(err)
				ts.Check(worldOf(ts).frames(args[0], n))
			},
			"advance": func(ts *testscript.TestScript, _ bool, args []string) {
				d, err := time.ParseDuration(args[0])
				ts.Check(err)
				w := worldOf(ts)
				w.mu.Lock()
				defer w.mu.Unlock()
				w.later += d
			},
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				w := worldOf(ts)
				w.mu.Lock()
				defer w.mu.Unlock()
				w.ready = nil
				if len(args) > 0 {
					w.ready = event.Unavailable(args[0], errors.New("the cause"))
				}
			},
			"logged": func(ts *testscript.TestScript, neg bool, args []string) {
				log := worldOf(ts).log.String()
				if regexp.MustCompile(args[0]).MatchString(log) == neg {
					ts.Fatalf("the log: %s", log)
				}
			},
		},
	})
}

// failNow ends a script's set-up, where there is no test to fail yet.
type failNow struct{}

func (failNow) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

type reply struct {
	status int
	header http.Header
	body   []byte
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value("world").(*world) }
func lastOf(ts *testscript.TestScript) *reply  { return ts.Value("last").(*reply) }

func doHTTP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: http METHOD PATH [flags]")
	}
	var body io.Reader
	kind, jar, header := "", "", http.Header{}
	for i := 2; i < len(args); i += 2 {
		if i+1 == len(args) {
			ts.Fatalf("%s lacks its value", args[i])
		}
		value := args[i+1]
		switch args[i] {
		case "-b":
			header.Set("Authorization", "Bearer "+value)
		case "-j":
			jar = value
		case "-H":
			name, text, _ := strings.Cut(value, ":")
			header.Set(name, strings.TrimSpace(text))
		case "-d":
			body = strings.NewReader(value)
		case "-f":
			body = strings.NewReader(ts.ReadFile(value))
		case "-n":
			n, err := strconv.Atoi(value)
			ts.Check(err)
			body = strings.NewReader(`{"title":"` + strings.Repeat("x", n-12) + `"}`)
		case "-chunked":
			n, err := strconv.Atoi(value)
			ts.Check(err)
			body = io.MultiReader(strings.NewReader(`{"title":"` + strings.Repeat("x", n-12) + `"}`)) // a length that nobody knows
		case "-t":
			kind = value
		default:
			ts.Fatalf("unknown flag %s", args[i])
		}
	}
	if body != nil && kind == "" {
		kind = "application/json"
	}
	w := worldOf(ts)
	req, err := http.NewRequest(args[0], w.server.URL+args[1], body)
	ts.Check(err)
	req.Header = header
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	if kind != "" && kind != "none" {
		req.Header.Set("Content-Type", kind)
	}
	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "identity")
	}
	jars := ts.Value("jars").(map[string]map[string]string)
	for name, value := range jars[jar] {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	// A pristine transport for each request: what one leaves on a connection is another test's matter.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}
	res, err := client.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	last := lastOf(ts)
	last.body, err = io.ReadAll(res.Body)
	ts.Check(err)
	last.status, last.header = res.StatusCode, res.Header
	for _, c := range res.Cookies() {
		if jar == "" {
			continue
		}
		if jars[jar] == nil {
			jars[jar] = map[string]string{}
		}
		if jars[jar][c.Name] = c.Value; c.MaxAge < 0 {
			delete(jars[jar], c.Name)
		}
	}
	_, _ = ts.Stdout().Write(last.body)
}

func doStatus(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(lastOf(ts).status); got != args[0] {
		ts.Fatalf("status %s, want %s: %s", got, args[0], lastOf(ts).body)
	}
}

func doHeader(ts *testscript.TestScript, neg bool, args []string) {
	values := lastOf(ts).header.Values(args[0])
	switch {
	case neg && len(values) > 0:
		ts.Fatalf("header %s is there: %q", args[0], values)
	case neg:
	case len(values) == 0:
		ts.Fatalf("header %s is missing", args[0])
	case !regexp.MustCompile(`\A(?:` + args[1] + `)\z`).MatchString(strings.Join(values, ", ")):
		ts.Fatalf("header %s is %q", args[0], values)
	}
}

// lookUp follows a path of keys and indexes.
func lookUp(body []byte, path string) (any, bool, error) {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, false, fmt.Errorf("%w: %s", err, body)
	}
	for step := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = at[step]; !ok {
				return nil, false, nil
			}
		case []any:
			if step == "len" {
				v = float64(len(at))
				continue
			}
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(at) {
				return nil, false, nil
			}
			v = at[i]
		default:
			return nil, false, nil
		}
	}
	return v, true, nil
}

func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func doJSON(ts *testscript.TestScript, neg bool, args []string) {
	v, ok, err := lookUp(lastOf(ts).body, args[0])
	ts.Check(err)
	switch {
	case neg && ok:
		ts.Fatalf("%s is there: %s", args[0], text(v))
	case neg:
	case !ok:
		ts.Fatalf("%s is missing: %s", args[0], lastOf(ts).body)
	case text(v) != args[1]:
		ts.Fatalf("%s is %s, want %s", args[0], text(v), args[1])
	}
}

func doKeep(ts *testscript.TestScript, _ bool, args []string) {
	if name, ok := strings.CutPrefix(args[1], "@"); ok {
		ts.Setenv(args[0], lastOf(ts).header.Get(name))
		return
	}
	v, ok, err := lookUp(lastOf(ts).body, args[1])
	ts.Check(err)
	if !ok {
		ts.Fatalf("%s is missing: %s", args[1], lastOf(ts).body)
	}
	ts.Setenv(args[0], text(v))
}

// doProblem checks all that every problem must have, and the three things that differ.
func doProblem(ts *testscript.TestScript, _ bool, args []string) {
	last := lastOf(ts)
	doStatus(ts, false, args[:1])
	if got := last.header.Get("Content-Type"); got != "application/problem+json" {
		ts.Fatalf("Content-Type %q: %s", got, last.body)
	}
	var p struct {
		Type, Title, Code, Detail, Field string
		Status                           int
	}
	dec := json.NewDecoder(bytes.NewReader(last.body))
	ts.Check(dec.Decode(&p))
	field := ""
	if len(args) > 2 {
		field = args[2]
	}
	if p.Type != "about:blank" || p.Title == "" || p.Detail == "" || strconv.Itoa(p.Status) != args[0] || p.Code != args[1] || p.Field != field {
		ts.Fatalf("want %s: %s", args, last.body)
	}
	for _, code := range []int{429, 503} {
		if last.status == code && last.header.Get("Retry-After") == "" {
			ts.Fatalf("%d without Retry-After", code)
		}
	}
}
