package crowd

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Rungs that listeners can take. MP4 and cues are Earshot's own; the others can be pointed at any server.
const (
	Push   = "push"
	WebRTC = "webrtc"
	HLS    = "hls"
	Ogg    = "ogg"
	MP4    = "mp4"
	Cues   = "cues"
)

// Rungs lists all.
var rungs = []string{Push, WebRTC, HLS, Ogg, MP4, Cues}

// Config is what a crowd is told to do. The zero values of what is optional mean: not.
type Config struct {
	// URL is an event's address, such as http://127.0.0.1:8080/e/demo, or that of a WHEP endpoint, an HLS playlist or an Icecast
	// mount of any server. Whatever is not on a loopback address needs the consent of its operator, see Token.
	URL string `json:"url"`

	// Also are further addresses of the same: other nodes that serve the same event. The listeners are dealt out evenly, a process to each
	// address at least.
	Also []string `json:"also,omitempty"`

	Rung    string `json:"rung"`    // one of push, webrtc, hls, ogg, mp4, cues
	Packet  int    `json:"packet"`  // ms of a WebRTC packet to wish for: 20, 60 or 120; 0: the server's choice
	Cadence int    `json:"cadence"` // ms between messages to wish for: 200, 400, 1000 or 2000; 0: the server's choice

	Listeners int           `json:"listeners"` // how many
	Arrive    time.Duration `json:"arrive"`    // all come within this
	Hold      time.Duration `json:"hold"`      // and stay for this
	Curve     string        `json:"curve"`     // ramp, flash, steps:N or file:PATH, see arrivals

	// Procs is over how many processes they are spread; 0: as few as the descriptor limit allows. Worker is the command that starts one: it
	// must call Work. Empty: all listen from this process.
	Procs  int      `json:"procs"`
	Worker []string `json:"-"`

	Patience time.Duration `json:"patience"` // who hears nothing for so long fails; 0: 15 s
	Leave    time.Duration `json:"leave"`    // how long one stays in the mean, exponentially distributed; 0: to the end
	Return   time.Duration `json:"return"`   // after how long one who left, failed or was cut off comes back, in the mean; 0: never
	Slow     float64       `json:"slow"`     // share of the listeners that read at half the stream's pace
	Loss     float64       `json:"loss"`     // share of media packets that WebRTC listeners lose

	RED  bool `json:"red"`  // WebRTC listeners offer RED (RFC 2198)
	NACK bool `json:"nack"` // WebRTC listeners offer NACK (RFC 4585), and use it

	// Light spares decryption: WebRTC listeners outside the sample check sequence numbers and times, which SRTP leaves in clear, but not what
	// the packets hold, nor that they are genuine.
	Light bool `json:"light"`

	Sample  int `json:"sample"`  // how many listeners' audio is decoded and compared; 0: 1 in 1000, but 2; -1: none
	Foreign int `json:"foreign"` // ffmpeg processes that listen beside them

	Token    string `json:"-"` // of the operator of a server that is not on a loopback address
	CA       string `json:"-"` // PEM file of certificates to trust beside the system's
	Insecure bool   `json:"-"` // trust any certificate; loopback only

	Seed uint64 `json:"seed"` // of all chance; 0: taken from the clock and reported

	// Live is told once a second how it goes. May be nil.
	Live func(Row) `json:"-"`
}

// fill puts in what was left out and answers the first thing that cannot work.
func (c *Config) fill() error {
	if c.Rung == "" {
		c.Rung = Push
	}
	if c.Curve == "" {
		c.Curve = "ramp"
	}
	if c.Patience == 0 {
		c.Patience = 15 * time.Second
	}
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano())
	}
	if c.Sample == 0 {
		c.Sample = max(2, c.Listeners/1000)
	}
	c.Sample = min(max(c.Sample, 0), c.Listeners)
	switch {
	case c.URL == "":
		return errors.New("--url is missing: name an event, such as http://127.0.0.1:8080/e/demo")
	case !slices.Contains(rungs, c.Rung):
		return fmt.Errorf("--rung %q: want one of %s", c.Rung, strings.Join(rungs, ", "))
	case !slices.Contains([]int{0, 20, 60, 120}, c.Packet):
		return fmt.Errorf("--packet %d: want 20, 60 or 120", c.Packet)
	case !slices.Contains([]int{0, 200, 400, 1000, 2000}, c.Cadence):
		return fmt.Errorf("--cadence %d: want 200, 400, 1000 or 2000", c.Cadence)
	case c.Listeners < 1 || c.Listeners > 5_000_000:
		return fmt.Errorf("--listeners %d: want 1 to 5,000,000", c.Listeners)
	case c.Arrive < 0 || c.Hold < 0 || c.Arrive+c.Hold > 24*time.Hour:
		return errors.New("--arrive and --hold: want durations of a day at most together, such as 5s")
	case c.Slow < 0 || c.Slow > 1 || c.Loss < 0 || c.Loss >= 1:
		return fmt.Errorf("--slow-readers %v, --loss %v: want shares from 0 to 1, such as 0.03", c.Slow, c.Loss)
	case c.Leave < 0 || c.Return < 0 || c.Patience < 0:
		return errors.New("--patience, --leave and --return: want durations such as 30s")
	case c.Procs < 0 || c.Procs > 1000:
		return fmt.Errorf("--procs %d: want 1 to 1000", c.Procs)
	case c.Slow > 0 && (c.Rung == WebRTC || c.Rung == HLS):
		return errors.New("--slow-readers is for rungs of one long response: push, ogg, mp4, cues")
	case c.Loss > 0 && c.Rung != WebRTC:
		return errors.New("--loss is for --rung webrtc: over TCP nothing is lost, only late; see --slow-readers")
	}
	for _, address := range c.urls() {
		u, err := url.Parse(address)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
			return fmt.Errorf("--url %q: want http:// or https://, a host and a path", address)
		}
	}
	return nil
}

// urls are all addresses.
func (c *Config) urls() []string { return append([]string{c.URL}, c.Also...) }
