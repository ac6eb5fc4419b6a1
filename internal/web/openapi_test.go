package web_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheDocumentKnowsTheProtocol: every address that PROTOCOL.md names with its method is in the API's document, and every
// operation in it has what a generated client needs.
func TestTheDocumentKnowsTheProtocol(t *testing.T) {
	protocol, err := os.ReadFile("../../PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID, Summary string
			Parameters           []struct{ Name, In string }
			Responses            map[string]struct{ Content map[string]any }
		}
		Components struct {
			SecuritySchemes map[string]any
		}
	}
	if err := json.Unmarshal(get((&oneRoom{}).handler(t), "/api/openapi.json").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool) // "POST /e/{}/whip"
	braces := regexp.MustCompile(`\{[a-z]+\}`)
	var ids []string
	for path, operations := range doc.Paths {
		for method, op := range operations {
			name := strings.ToUpper(method) + " " + path
			known[braces.ReplaceAllString(name, "{}")] = true
			ids = append(ids, op.OperationID)
			if op.Summary == "" || op.OperationID == "" || op.Responses["default"].Content["application/problem+json"] == nil || len(op.Responses) < 2 {
				t.Errorf("%s lacks something: %+v", name, op)
			}
			if got, want := len(op.Parameters), strings.Count(path, "{"); got < want {
				t.Errorf("%s has %d parameters, want %d", name, got, want)
			}
		}
	}
	slices.Sort(ids)
	if len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("an operation's ID is used twice: %v", ids)
	}
	if doc.OpenAPI != "3.1.0" || doc.Components.SecuritySchemes["bearer"] == nil || doc.Components.SecuritySchemes["cookie"] == nil {
		t.Errorf("%s %v", doc.OpenAPI, doc.Components.SecuritySchemes)
	}

	found := 0
	event, people := "/api/v1/events/{}", "/api/v1/events/{}/people/{}"
	want := []string{"POST " + event + "/doors", "POST " + event + "/live", "POST " + event + "/end", "POST " + event + "/cancel", "POST " + people + "/unmute"}
	for _, m := range regexp.MustCompile("`(GET|POST|PATCH|DELETE) (/?[a-z][^` ]*|/[^` ]+)[`? ]").FindAllStringSubmatch(string(protocol), -1) {
		path := braces.ReplaceAllString(strings.TrimSuffix(m[2], "`"), "{}")
		if !strings.HasPrefix(path, "/") {
			path = event + "/" + path // the stage's table is relative
		}
		want = append(want, m[1]+" "+path)
		found++
	}
	if found < 25 {
		t.Errorf("only %d addresses were found in PROTOCOL.md", found)
	}
	for _, name := range want {
		if !known[name] {
			t.Errorf("the document lacks %s", name)
		}
	}
}
