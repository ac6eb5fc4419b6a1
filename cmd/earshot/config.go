package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"earshot/internal/app"
)

// configCmd is `earshot config`: what serve would run with. It takes the flags that serve takes, so that a line can be tried by
// changing one word.
type configCmd struct {
	serveCmd
}

// Help is what --help adds.
func (*configCmd) Help() string {
	return `Prints every setting as 'earshot serve' would have it, what it means and where it came from, in the form of a file for --config. Passwords
are hidden. Ends with status 1, and says why, if serve would refuse them.`
}

// Run is `earshot config`.
func (c *configCmd) Run(k *kong.Context, s *settings) error {
	derived := c.derive(s)
	printSettings(os.Stdout, k.Selected().Flags, s, derived)
	var cfg app.Config
	if err := c.fill(&cfg); err != nil {
		return err
	}
	return cfg.Validate()
}

// printSettings writes YAML that --config takes, but for what is hidden.
func printSettings(w io.Writer, flags []*kong.Flag, s *settings, derived map[string]string) {
	fmt.Fprintln(w, "# What 'earshot serve' runs with. A flag beats the environment, the environment beats the file of --config.")
	fmt.Fprintln(w, "# Everywhere the name is the same: --node-roles, EARSHOT_NODE_ROLES, and here node-roles.")
	for _, f := range flags {
		if f.Name == configFlag || f.Hidden {
			continue
		}
		from := "default"
		if o, ok := s.origins[f.Name]; ok {
			from = o.from
		} else if why, ok := derived[f.Name]; ok {
			from = why
		}
		fmt.Fprintln(w)
		for _, line := range wrap(f.Help, 118) {
			fmt.Fprintln(w, "#", line)
		}
		if f.Enum != "" {
			fmt.Fprintln(w, "# One of:", strings.ReplaceAll(f.Enum, ",", ", "))
		}
		words, hidden := shown(f)
		switch {
		case len(words) == 0:
			fmt.Fprintf(w, "#%s:  # not set\n", f.Name)
		case hidden:
			fmt.Fprintf(w, "#%s: %s  # %s; the secret is not shown\n", f.Name, strings.Join(words, ", "), from)
		case f.IsSlice():
			fmt.Fprintf(w, "%s: [%s]  # %s\n", f.Name, strings.Join(words, ", "), from)
		default:
			fmt.Fprintf(w, "%s: %s  # %s\n", f.Name, words[0], from)
		}
	}
}

// shown gives a flag's value as words of YAML, and whether something of it is hidden.
func shown(f *kong.Flag) (words []string, hidden bool) {
	add := func(v any) {
		text := fmt.Sprint(v)
		if f.Tag.Has("secret") {
			if clear := hide(text, f.Tag.Get("secret")); clear != text {
				text, hidden = clear, true
			}
		}
		words = append(words, quote(text, f))
	}
	target := f.Target
	switch {
	case f.IsSlice():
		for i := range target.Len() {
			add(target.Index(i).Interface())
		}
	case f.IsBool(), !target.IsZero():
		add(target.Interface())
	}
	return words, hidden
}

// quote writes a word so that YAML reads it back as it is; in a list brackets and commas would end it.
func quote(text string, f *kong.Flag) string {
	style := yaml.Style(0)
	if f.IsSlice() && strings.ContainsAny(text, ",[]{}") || strings.Contains(text, "\n") {
		style = yaml.DoubleQuotedStyle
	}
	b, err := yaml.Marshal(&yaml.Node{Kind: yaml.ScalarNode, Value: text, Style: style})
	if err != nil {
		return fmt.Sprintf("%q", text)
	}
	return strings.TrimSuffix(string(b), "\n")
}

// hide replaces what must not be shown. A flag's tag says what that is: secret:"url" what stands before the @ of each URL in a list,
// all else the whole.
func hide(text, kind string) string {
	if kind != "url" {
		return "..."
	}
	parts := strings.Split(text, ",")
	for i, p := range parts {
		u, err := url.Parse(strings.TrimSpace(p))
		switch {
		case err != nil:
			parts[i] = "..." // it may hold a secret all the same
		case u.Host == "" && strings.Contains(p, "@"):
			parts[i] = "..." // without a scheme it may be a user and a password
		case u.User == nil:
		default:
			// A name alone may be a token.
			name := "..."
			if _, has := u.User.Password(); has {
				name = u.User.Username() + ":..."
			}
			u.User = nil
			scheme, rest, _ := strings.Cut(u.String(), "://")
			parts[i] = scheme + "://" + name + "@" + rest
		}
	}
	return strings.Join(parts, ",")
}

// wrap breaks a text into lines of at most n bytes, words apart.
func wrap(text string, n int) (lines []string) {
	for _, word := range strings.Fields(text) {
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(word) <= n {
			lines[last] += " " + word
			continue
		}
		lines = append(lines, word)
	}
	return lines
}
