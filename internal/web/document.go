package web

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"earshot/internal/event"
)

func pathParam(name, about string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: about, Schema: &huma.Schema{Type: huma.TypeString}}
}

// wish is an optional number in the query.
func wish(name, about string, values ...any) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: about, Schema: &huma.Schema{Type: huma.TypeInteger, Enum: values, Default: values[0]}}
}

func streamed(kind, about string) *huma.Response {
	return &huma.Response{Description: about, Content: map[string]*huma.MediaType{kind: {Schema: &huma.Schema{Type: huma.TypeString}}}}
}

// document adds the addresses of the audio to the API's document: they are not huma's, but belong to what a program can ask.
func (a api) document() {
	sdp := func(about string) map[string]*huma.Response {
		return map[string]*huma.Response{"201": streamed(sdpType, about)}
	}
	ok := func(kind, about string) map[string]*huma.Response {
		return map[string]*huma.Response{"200": streamed(kind, about)}
	}
	gone := map[string]*huma.Response{"204": {Description: "Done."}}
	cadence := wish("cadence", "How often the server writes, in milliseconds, at the quickest.", 200, 400, 1000, 2000)
	wishes := map[string]*huma.Param{
		"live": cadence, "live-mp4": cadence, "live-ogg": cadence, "live-aac": cadence, "live-mp3": cadence, "cues": cadence,
		"whep": wish("packet", "Milliseconds of programme in a packet, at the least.", 20, 60, 120),
	}
	const session = "A WebRTC session, by the Location of its answer."
	for _, d := range []struct {
		id, method, path, tag, summary string
		need                           need
		body                           string
		answers                        map[string]*huma.Response
	}{
		{"speak", "POST", "/stage", tagVoices, "Speak and hear the others", part, sdpType, sdp("The answer, sendrecv.")},
		{"whip", "POST", "/whip", tagVoices, "Speak, for WHIP programs", part, sdpType, sdp("The answer, recvonly.")},
		{"whep", "POST", "/whep", tagListen, "Listen over WebRTC; ?monitor=1: hear the others, for those on stage", anyone, sdpType, sdp("The answer, sendonly.")},
		{"end-stage-session", "DELETE", "/stage/{id}", tagVoices, session, anyone, "", gone},
		{"end-whip-session", "DELETE", "/whip/{id}", tagVoices, session, anyone, "", gone},
		{"end-whep-session", "DELETE", "/whep/{id}", tagListen, session, anyone, "", gone},
		{"live", "GET", "/live", tagListen, "WebSocket push of fMP4 parts and cues", anyone, "", map[string]*huma.Response{"101": {Description: "RFC 6455."}}},
		{"live-mp4", "GET", "/live.mp4", tagListen, "One long fragmented MP4", anyone, "", ok("audio/mp4", "The programme.")},
		{"live-ogg", "GET", "/live.ogg", tagListen, "One long Ogg Opus stream", anyone, "", ok("audio/ogg", "The programme.")},
		{"live-aac", "GET", "/live.aac", tagListen, "One long AAC stream in ADTS, where ffmpeg is installed; with Icy-MetaData: 1 there is metadata in it", anyone, "", ok("audio/aac", "The programme.")},
		{"live-mp3", "GET", "/live.mp3", tagListen, "One long MP3 stream, where ffmpeg is installed; with Icy-MetaData: 1 there is metadata in it", anyone, "", ok("audio/mpeg", "The programme.")},
		{"hls", "GET", "/hls/index.m3u8", tagListen, "LL-HLS; the replay after the end", anyone, "", ok(playlistType, "The multivariant playlist.")},
		{"cues", "GET", "/cues", tagListen, "The cues as an event stream", anyone, "", ok("text/event-stream", "The stream.")},
		{"count", "GET", "/count", tagListen, "The audience in figures", anyone, "", map[string]*huma.Response{"200": {
			Description: "The figures.", Content: map[string]*huma.MediaType{"application/json": {Schema: countSchema()}},
		}}},
		{"replay", "GET", "/replay.opus", tagListen, "The recording as a file", anyone, "", ok("audio/ogg", "The whole, from the doors' opening.")},
	} {
		o := a.describe(operation{id: d.id, method: d.method, path: "/e/{slug}" + d.path, tag: d.tag, summary: d.summary, need: d.need})
		o.Parameters = []*huma.Param{pathParam("slug", "The event's address.")}
		if d.method == http.MethodDelete {
			o.Parameters = append(o.Parameters, pathParam("id", "The session's ID."))
		}
		if d.body != "" {
			o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{d.body: {Schema: &huma.Schema{Type: huma.TypeString}}}}
		}
		if wish := wishes[d.id]; wish != nil {
			o.Parameters = append(o.Parameters, wish)
		}
		for status, response := range d.answers {
			o.Responses[status] = response
		}
		a.huma.OpenAPI().AddOperation(&o)
	}
	o := a.describe(operation{
		id: "crowd-consent", method: http.MethodGet, path: consentPath, tag: tagOperation, need: event.Operate,
		summary: "Whether the bearer may send a crowd, and how large a one",
	})
	o.Responses["200"] = streamed("application/json", "How many listeners.")
	a.huma.OpenAPI().AddOperation(&o)
	b := a.describe(operation{
		id: "backup", method: http.MethodGet, path: backupPath, tag: tagOperation, need: event.Operate, summary: "All that must survive, as one file",
		about: "For earshot restore. With the operator's key as a bearer token, not with a session; one at a time. A response that was cut is no backup.",
	})
	b.Security = []map[string][]string{{"bearer": {}}}
	b.Parameters = []*huma.Param{{
		Name: "sessions", In: "query", Description: "Whether browsers' sessions are in it.", Schema: &huma.Schema{Type: huma.TypeBoolean, Default: false},
	}}
	b.Responses["200"] = streamed("application/x-tar", "The backup.")
	a.huma.OpenAPI().AddOperation(&b)
	for _, d := range []struct{ id, path, summary string }{
		{"healthz", "/healthz", "Whether the process lives"},
		{"readyz", "/readyz", "Whether it takes listeners; 503 if not"},
		{"metrics", "/metrics", "Figures, in the Prometheus text format"},
	} {
		o := a.describe(operation{id: d.id, method: http.MethodGet, path: d.path, tag: tagOperation, summary: d.summary})
		o.Responses["200"] = streamed("text/plain", "One line, or the figures.")
		a.huma.OpenAPI().AddOperation(&o)
	}
}

func countSchema() *huma.Schema {
	figure := func(about string) *huma.Schema { return &huma.Schema{Type: huma.TypeInteger, Description: about} }
	return &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{
		"now": figure("Listening now."), "peak": figure("The most at any moment."), "tuned_in": figure("All since the doors opened."),
		"definition": {Type: huma.TypeString, Description: "What is counted, in words."},
	}}
}
