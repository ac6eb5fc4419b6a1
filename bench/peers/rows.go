//go:build linux

package main

// row is how a scenario appears on the page.
type row struct {
	name  string // of the scenario
	title string
	who   string
	limit string // the bare loop that it is compared with
}

// listening are the rows about what a listener costs, cheapest kind first in each group.
var listening = []struct {
	title string
	rows  []row
}{
	{"One write a second, or fewer", []row{
		{"bare-tcp-1000", "bare TCP loop, 4 KB a second", "limit", ""},
		{"push-1000", "Earshot push, 1 s", "Earshot", "bare-tcp-1000"},
		{"push-tls-1000", "Earshot push over TLS, 1 s", "Earshot", "bare-tcp-1000"},
		{"push-2000", "Earshot push, 2 s", "Earshot", ""},
		{"ogg-1000", "Earshot live.ogg, 1 s", "Earshot", "bare-tcp-1000"},
		{"mp4-1000", "Earshot live.mp4, 1 s", "Earshot", "bare-tcp-1000"},
		{"cues-1000", "Earshot cues alone, 1 s", "Earshot", "bare-tcp-1000"},
		{"icecast-1000", "Icecast, pages of 1 s", "peer", "bare-tcp-1000"},
		{"hls", "Earshot LL-HLS, parts of 400 ms", "Earshot", ""},
		{"nginx-hls", "nginx, HLS segments of 2 s", "peer", ""},
	}},
	{"Several writes a second", []row{
		{"bare-tcp-200", "bare TCP loop, 0.8 KB five times a second", "limit", ""},
		{"push-200", "Earshot push, 200 ms", "Earshot", "bare-tcp-200"},
		{"push-tls-200", "Earshot push over TLS, 200 ms", "Earshot", "bare-tcp-200"},
		{"push-400", "Earshot push, 400 ms", "Earshot", ""},
		{"icecast-200", "Icecast, pages of 200 ms", "peer", "bare-tcp-200"},
	}},
	{"WebRTC", []row{
		{"bare-udp-20", "seal-and-send loop, 20 ms packets", "limit", ""},
		{"webrtc-20", "Earshot WebRTC, 20 ms", "Earshot", "bare-udp-20"},
		{"janus-20", "Janus, 20 ms", "peer", "bare-udp-20"},
		{"livekit-20", "LiveKit, 20 ms", "peer", "bare-udp-20"},
		{"bare-udp-60", "seal-and-send loop, 60 ms packets", "limit", ""},
		{"webrtc-60", "Earshot WebRTC, 60 ms", "Earshot", "bare-udp-60"},
		{"bare-udp-120", "seal-and-send loop, 120 ms packets", "limit", ""},
		{"webrtc-120", "Earshot WebRTC, 120 ms", "Earshot", "bare-udp-120"},
	}},
}

// joining are the rows about newcomers.
var joining = []row{
	{"bare-join", "accept, read, answer: the loop", "limit", ""},
	{"join-push", "Earshot push", "Earshot", "bare-join"},
	{"join-icecast-300", "Icecast", "peer", "bare-join"},
	{"join-icecast-1000", "Icecast", "peer", "bare-join"},
	{"join-nginx-3000", "nginx, HLS", "peer", "bare-join"},
	{"bare-join-tls", "TLS 1.3 handshake and answer: the loop", "limit", ""},
	{"join-push-tls", "Earshot push over TLS", "Earshot", "bare-join-tls"},
	{"join-webrtc", "Earshot WebRTC", "Earshot", ""},
	{"janus-20", "Janus", "peer", ""},
	{"livekit-20", "LiveKit", "peer", ""},
}

// elsewhere are the figures of servers that cannot be had here, measured earlier on another machine of two cores, pinned alike; microseconds
// per listener-second.
var elsewhere = []struct {
	title string
	us    float64
	note  string
}{
	{"LiveKit 1.13.5", 791, "1.07 MB a listener; a join costs 10 to 41 ms"},
	{"Galene", 752, "0.31 MB; 6 to 28 ms"},
	{"MediaMTX 1.20.1, WHEP", 838, "0.48 MB; 7 to 19 ms"},
	{"MediaMTX 1.20.1, LL-HLS with parts of 500 ms", 370, "66 to 100 KB; 3 ms"},
}

// absent says why a peer is not here.
var absent = []struct{ name, why string }{
	{"Galene, MediaMTX", "`go install` of the newest version, and of one exact release or branch, is refused by the Go module proxy that can be reached here: \"this module version is not available\""},
	{"LiveKit 1.13", "its go.mod has replace directives, which `go install` refuses; 1.9.0 is not available; 1.8.4, which is measured, is the newest that installs"},
	{"mediasoup", "npm installs it, but its worker is a prebuilt binary from elsewhere, and to build it needs Python packages, neither of which can be reached"},
	{"go2rtc, Broadcast Box", "not available from the module proxy either"},
}
