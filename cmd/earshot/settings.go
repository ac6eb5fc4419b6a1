package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

const (
	envPrefix = "EARSHOT_"

	// configFlag names the file of settings. It is the one setting that the file cannot say.
	configFlag = "config"

	// maxFile is far more than a file of settings has.
	maxFile = 1 << 20
)

// settings gives serve's flags what the command line leaves open: the environment's word, else the file's. One name serves all three:
// --node-roles, EARSHOT_NODE_ROLES, and `node-roles` in the file. It remembers where each value came from.
type settings struct {
	environ []string // of the process, as os.Environ gives it
	loaded  bool
	env     map[string]string   // by flag
	file    string              // that was read; empty: none
	values  map[string]fileWord // by flag
	origins map[string]origin   // by flag, of those whose value is not the default
}

// fileWord is a value in the file.
type fileWord struct {
	words []string
	list  bool
	line  int
}

// origin is where a value came from.
type origin struct {
	from string // as people are told: "EARSHOT_LISTEN", "earshot.yaml, line 3"
	flag bool   // on the command line
}

func newSettings(environ []string) *settings {
	return &settings{environ: environ, env: map[string]string{}, values: map[string]fileWord{}, origins: map[string]origin{}}
}

// options teach kong where else to look.
func (s *settings) options() []kong.Option {
	return []kong.Option{
		kong.WithBeforeResolve(s.load),
		kong.Resolvers(kong.ResolverFunc(s.resolve)),
		kong.Bind(s),
	}
}

// settable are the flags that the environment and the file may say: those of the commands that serve or tell how they would.
func settable(k *kong.Context) []*kong.Flag {
	n := k.Selected()
	if n == nil || n.Name != "serve" && n.Name != "config" {
		return nil
	}
	return n.Flags
}

// variable is the environment's name of a flag.
func variable(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// load reads the environment and the file, and refuses names that nothing answers to: a setting that is silently ignored is found out
// when it is missed.
func (s *settings) load(k *kong.Context) error {
	flags := settable(k)
	if s.loaded || len(flags) == 0 { // kong asks once for each part of the command line
		return nil
	}
	s.loaded = true
	names := map[string]*kong.Flag{}
	for _, f := range flags {
		names[f.Name] = f
	}
	if err := s.loadEnv(k, names); err != nil {
		return err
	}
	path := s.env[configFlag]
	if named, ok := k.FlagValue(names[configFlag]).(string); ok && named != "" {
		path = named
	}
	if path == "" {
		return nil
	}
	s.file = path
	return s.loadFile(path, names)
}

func (s *settings) loadEnv(k *kong.Context, names map[string]*kong.Flag) error {
	known := map[string]string{} // flag by variable
	for name := range names {
		known[variable(name)] = name
	}
	for _, pair := range s.environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" { // an empty one is as good as none: compose files can't leave one out
			continue
		}
		if flag, ok := known[name]; ok {
			s.env[flag] = value
			continue
		}
		if serviceLink.MatchString(name) || elsewhere(k.Model.Node, name) {
			continue
		}
		return fmt.Errorf("environment: %s is no setting%s; 'earshot config' lists them all", name, nearest(name, known))
	}
	return nil
}

// serviceLink matches what Kubernetes puts into the environment of every container beside a service that is called earshot.
var serviceLink = regexp.MustCompile(`^EARSHOT_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// elsewhere says whether a variable is another command's.
func elsewhere(n *kong.Node, name string) bool {
	for _, f := range n.Flags {
		if slices.Contains(f.Envs, name) {
			return true
		}
	}
	return slices.ContainsFunc(n.Children, func(c *kong.Node) bool { return elsewhere(c, name) })
}

func (s *settings) loadFile(path string, names map[string]*kong.Flag) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("--config %s: want a file of settings, a line each, such as 'listen: 127.0.0.1:8080': %w", path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	if len(b) > maxFile {
		return fmt.Errorf("--config %s: that is no file of settings: it has more than 1 MiB", path)
	}
	if s.values, err = parseFile(b, names); err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	return nil
}

// parseFile reads YAML of one level: names of flags, each with a value or a list of them. Values are words, as on the command line:
// YAML's own types play no part, so that `on`, `1e3` or `0x1f` mean what they would there.
func parseFile(b []byte, names map[string]*kong.Flag) (map[string]fileWord, error) {
	known := map[string]string{}
	for name := range names {
		if name != configFlag {
			known[name] = name
		}
	}
	values := map[string]fileWord{}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) { // nothing but comments
			return values, nil
		}
		return nil, fmt.Errorf("not YAML: %s; put quotes around a value that has : # [ ] { } or , in it", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one document in it: remove the line '---'")
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return values, nil
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want a setting a line, such as 'listen: 127.0.0.1:8080'", top.Line)
	}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, node := top.Content[i], top.Content[i+1]
		flag := names[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			return nil, fmt.Errorf("line %d: want the name of a setting, such as listen", key.Line)
		case key.Value == configFlag:
			return nil, fmt.Errorf("line %d: a file cannot name another by config; use --config or %s", key.Line, variable(configFlag))
		case flag == nil:
			return nil, fmt.Errorf("line %d: %q is no setting%s; 'earshot config' lists them all", key.Line, key.Value, nearest(key.Value, known))
		}
		if earlier, twice := values[key.Value]; twice {
			return nil, fmt.Errorf("line %d: %s was said before, in line %d", key.Line, key.Value, earlier.line)
		}
		word := fileWord{line: node.Line}
		switch {
		case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
			continue // a name and nothing after it is as good as none
		case node.Kind == yaml.ScalarNode:
			word.words = []string{node.Value}
		case node.Kind == yaml.SequenceNode && flag.IsSlice():
			word.list = true
			for _, n := range node.Content {
				if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
					return nil, fmt.Errorf("line %d: %s is a list of plain values", n.Line, key.Value)
				}
				word.words = append(word.words, n.Value)
			}
			if len(word.words) == 0 {
				continue
			}
		default:
			want := "one plain value"
			if flag.IsSlice() {
				want = "a plain value, or a list of them"
			}
			return nil, fmt.Errorf("line %d: %s wants %s; put quotes around one that has : # [ ] { } or , in it", node.Line, key.Value, want)
		}
		values[key.Value] = word
	}
	return values, nil
}

// resolve is asked for each flag that the command line does not say.
func (s *settings) resolve(k *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	if !slices.Contains(settable(k), f) {
		return nil, nil
	}
	if value, ok := s.env[f.Name]; ok {
		s.origins[f.Name] = origin{from: variable(f.Name)}
		return value, nil
	}
	if w, ok := s.values[f.Name]; ok {
		s.origins[f.Name] = origin{from: fmt.Sprintf("%s, line %d", s.file, w.line)}
		if w.list && f.Tag.Sep != -1 {
			return kong.JoinEscaped(w.words, f.Tag.Sep), nil
		}
		if w.list {
			list := make([]any, len(w.words))
			for i, word := range w.words {
				list[i] = word
			}
			return list, nil
		}
		return w.words[0], nil
	}
	return nil, nil
}

// parsed notes which flags were on the command line itself.
func (s *settings) parsed(k *kong.Context) {
	for _, p := range k.Path {
		if p.Flag != nil && !p.Resolved {
			s.origins[p.Flag.Name] = origin{from: "--" + p.Flag.Name, flag: true}
		}
	}
}

// said tells whether somebody gave a flag its value.
func (s *settings) said(flag string) bool {
	_, ok := s.origins[flag]
	return ok
}

var flagName = regexp.MustCompile(`--[a-z][a-z0-9-]*`)

// explain says of the flags that an error names where their values came from, if that was not the command line: who never typed --listen
// would look for it in vain.
func (s *settings) explain(err error) error {
	var notes []string
	for _, f := range flagName.FindAllString(err.Error(), -1) {
		o, ok := s.origins[f[2:]]
		if note := f + " comes from " + o.from; ok && !o.flag && !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	if len(notes) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, strings.Join(notes, "; "))
}

// nearest proposes the known name that a wrong one was probably meant to be: ", did you mean listen?", or nothing.
func nearest(name string, known map[string]string) string {
	bare := func(s string) string { return strings.ToLower(strings.TrimPrefix(s, envPrefix)) }
	best, least := "", len(bare(name))/2+1
	for k := range known {
		if d := distance(bare(name), bare(k)); d < least || d == least && k < best {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// distance is Levenshtein's: how many letters to insert, remove or replace. Underscores count as hyphens.
func distance(a, b string) int {
	a, b = strings.ReplaceAll(a, "_", "-"), strings.ReplaceAll(b, "_", "-")
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(row[j]+1, diagonal+1, replaced)
		}
	}
	return row[len(b)]
}
