package web

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"earshot/internal/event"
)

// operation is a row of the API's table.
type operation struct {
	id, method, path, tag, summary, about string
	need                                  need
	status                                int  // of success; 0: 200, or 204 where there is no body
	public                                bool // every origin may read it
}

const (
	eventPath = "/api/v1/events/{slug}"

	tagSession = "Session"
	tagEvents  = "Events"
	tagInvites = "Invites"
	tagStage   = "Stage"
	tagVoices  = "Voices"
	tagListen  = "Listening"

	tagOperation = "Operation"
)

// api holds what the routes of /api/v1 are made with.
type api struct {
	web  *web
	huma huma.API
}

// routeAPI adds everything under /api, and the document that describes it.
func (s *web) routeAPI() error {
	registry := huma.NewMapRegistry("#/components/schemas/", func(t reflect.Type, hint string) string {
		return strings.TrimSuffix(huma.DefaultSchemaNamer(t, hint), "JSON")
	})
	cfg := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "Earshot",
				Version:     s.cfg.Version,
				Description: "Live voice events. PROTOCOL.md of the source says more about the audio, the cues and who may do what.",
				License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", Description: "The secret of a link: what follows #k= in it. For programs."},
					"cookie": {Type: "apiKey", In: "cookie", Name: cookieName, Description: "A session, from POST /api/v1/session. For browsers."},
				},
			},
			Tags: []*huma.Tag{
				{Name: tagSession, Description: "Who one is."},
				{Name: tagEvents, Description: "What is planned, on and over."},
				{Name: tagInvites, Description: "Links to the roles."},
				{Name: tagStage, Description: "Who speaks, and who would like to."},
				{Name: tagVoices, Description: "WebRTC, towards the stage (WHIP, RFC 9725)."},
				{Name: tagListen, Description: "The programme, live and after."},
				{Name: tagOperation, Description: "For the operator's tools."},
			},
		},
		// "json" stands for every type that ends in +json, problems among them.
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{s.transform},
		// OpenAPIPath, DocsPath and SchemasPath stay empty: the document is served below, made once, and huma's page loads
		// from elsewhere.
	}
	a := api{web: s, huma: humago.New(jsonMux{s}, cfg)}
	a.sessions()
	a.events()
	a.invites()
	a.people()
	a.bans()
	a.handOver()
	a.pace()
	a.crowds()
	a.document()

	// Huma registers its own error, which nobody here is ever sent.
	delete(registry.Map(), "ErrorModel")
	delete(registry.Map(), "ErrorDetail")
	doc, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		return err
	}
	b := newBody("application/vnd.oai.openapi+json;version=3.1", append(doc, '\n'), nil, nil)
	s.handle("GET /api/openapi.json", func(w http.ResponseWriter, r *http.Request) { b.serve(w, r, "no-cache") })
	return nil
}

// transform is where huma's own errors get our shape, and where all that huma writes is counted.
func (s *web) transform(ctx huma.Context, _ string, v any) (any, error) {
	route := ctx.Operation().Method + " " + ctx.Operation().Path
	switch m := v.(type) {
	case *problem:
		return s.told(ctx.Context(), route, m), nil
	case *huma.ErrorModel:
		return s.told(ctx.Context(), route, fromHuma(m)), nil
	}
	return v, nil
}

// jsonMux is the mux as huma sees it: bodies are read and checked before huma gets them.
type jsonMux struct{ *web }

func (m jsonMux) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.handle(pattern, func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Get("Cache-Control") == "" {
			w.Header().Set("Cache-Control", "no-store")
		}
		if err := readJSON(w, r); err != nil {
			m.fail(w, r, err)
			return
		}
		h(w, r)
	})
}

type callKey struct{}

// called gives the judged call that a handler works for.
func called(ctx context.Context) call {
	c, _ := ctx.Value(callKey{}).(call)
	return c
}

// add registers an operation. Who is asking is judged before the body is looked at: a stranger learns nothing from its errors.
func add[I, O any](a api, op operation, do func(context.Context, call, *I) (*O, error)) {
	o := a.describe(op)
	if op.status != 0 {
		o.DefaultStatus = op.status
	}
	o.MaxBodyBytes = maxBody + 1 // readJSON has judged it; huma refuses what reaches this
	o.BodyReadTimeout = -1
	o.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		c, err := a.web.judge(r, r.PathValue("slug"), op.need)
		if err != nil {
			a.web.fail(w, r, err)
			return
		}
		next(huma.WithValue(ctx, callKey{}, c))
	}}
	if op.public {
		a.web.share(op.path, http.MethodGet)
	}
	huma.Register(a.huma, o, func(ctx context.Context, in *I) (*O, error) {
		out, err := do(ctx, called(ctx), in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

// describe gives an operation's entry in the document.
func (a api) describe(op operation) huma.Operation {
	o := huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Summary: op.summary, Description: op.about, Tags: []string{op.tag},
		Responses: map[string]*huma.Response{"default": {
			Description: "What went wrong (RFC 9457).",
			Content: map[string]*huma.MediaType{"application/problem+json": {
				Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[problem](), true, "Problem"),
			}},
		}},
	}
	if roles := event.Holders(op.need); op.need != anyone && len(roles) > 0 {
		who := make([]string, len(roles))
		for i, r := range roles {
			who[i] = string(r)
		}
		o.Description = strings.TrimSpace(o.Description + " For: " + strings.Join(who, ", ") + ".")
	}
	if op.need != anyone {
		o.Security = []map[string][]string{{"bearer": {}}, {"cookie": {}}}
	}
	return o
}

// explain puts a schema's complaint into words: the field, and what is wrong with it.
func explain(err error) (field, detail string) {
	d, ok := err.(huma.ErrorDetailer) //nolint:errorlint // huma collects details, it does not wrap them
	if !ok {
		return "", "The request does not fit."
	}
	e := d.ErrorDetail()
	_, field, _ = strings.Cut(e.Location, ".")
	if name, found := strings.CutPrefix(e.Message, "expected required property "); found {
		if name, found = strings.CutSuffix(name, " to be present"); found {
			field = name
			return field, "The field " + name + " is missing."
		}
	}
	if field == "" {
		field = e.Location
	}
	field = clean(clip(field, 64))
	if e.Message == "unexpected property" {
		return field, "There is no field " + field + "."
	}
	return field, "The field " + field + ": " + clean(clip(e.Message, 200)) + "."
}

// clean keeps what somebody sent from acting on whoever reads it back.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "�")
	out, err := event.CleanText("", s, len(s))
	if err != nil {
		return "…"
	}
	return string(bytes.TrimSpace([]byte(out)))
}
