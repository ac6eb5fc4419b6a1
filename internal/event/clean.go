package event

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// CheckSlug says whether s can be an event's address: 1 to 64 of a-z, 0-9 and inner single hyphens. Nothing else reaches
// a path, a subject or a file name, so nothing else needs escaping there.
func CheckSlug(s string) error {
	const rule = "An address has 1 to 64 characters: small letters a to z, digits, and single hyphens between them."
	if s == "" || len(s) > 64 || s[0] == '-' || s[len(s)-1] == '-' || strings.Contains(s, "--") {
		return Invalid("slug", rule)
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return Invalid("slug", rule)
		}
	}
	return nil
}

// SlugFrom proposes an address for a title: its letters without marks, small, joined by hyphens, whole words up to 60
// characters. It may be empty, when nothing of the title can be written in a to z.
func SlugFrom(title string) string {
	var b strings.Builder
	gap := false
	for _, r := range norm.NFKD.String(strings.ToLower(title)) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			if gap && b.Len() > 0 {
				b.WriteByte('-')
			}
			gap = false
			b.WriteRune(r)
		case unicode.Is(unicode.Mn, r):
		default:
			gap = true
		}
		if b.Len() > 60 {
			break
		}
	}
	s := b.String()
	if len(s) > 60 {
		s = s[:60]
		if i := strings.LastIndexByte(s, '-'); i > 0 {
			s = s[:i]
		}
	}
	return s
}

// CleanLine normalises a one-line text (NFC, runs of white space to one space) and refuses emptiness, more than limit
// characters, and characters that act on their surroundings: controls, and the bidirectional overrides and isolates that
// let a name reorder the text after it (Unicode TR 36, 3.5). Letters of every script and emoji pass.
func CleanLine(field, s string, limit int) (string, error) {
	s, err := CleanText(field, s, limit)
	if err != nil {
		return "", err
	}
	s = strings.Join(strings.Fields(s), " ")
	if s == "" {
		return "", Invalid(field, "This cannot be empty.")
	}
	if !strings.ContainsFunc(s, visible) {
		return "", Invalid(field, "This needs at least one visible character.")
	}
	return s, nil
}

// CleanText is CleanLine for text of several lines, which may be empty.
func CleanText(field, s string, limit int) (string, error) {
	if !utf8.ValidString(s) {
		return "", Invalid(field, "This is not valid UTF-8.")
	}
	s = strings.TrimSpace(norm.NFC.String(strings.ReplaceAll(s, "\r\n", "\n")))
	if n := utf8.RuneCountInString(s); n > limit {
		return "", Invalid(field, fmt.Sprintf("This has %d characters; at most %d are possible.", n, limit))
	}
	for _, r := range s {
		if r != '\n' && r != '\t' && unicode.IsControl(r) || reorders(r) {
			return "", Invalid(field, fmt.Sprintf("The character %U cannot be used here.", r))
		}
	}
	return s, nil
}

// reorders tells the explicit bidirectional controls, and the separators that break lines where no line may break.
func reorders(r rune) bool {
	return r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069 || r == 0x2028 || r == 0x2029
}

func visible(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsPunct(r) || unicode.IsSymbol(r)
}
