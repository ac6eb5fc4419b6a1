package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"earshot/internal/crowd"
)

type crowdCmd struct {
	URL       []string      `required:"" name:"url" sep:"none" placeholder:"URL" help:"Where to listen: an event (http://127.0.0.1:8080/e/demo), or any server's WHEP address, HLS playlist or Icecast mount. Several times: the same event on several nodes."`
	Rung      string        `default:"push" enum:"push,webrtc,hls,ogg,mp4,cues" help:"How to listen: ${enum} (${default})."`
	Packet    int           `default:"0" help:"Milliseconds of a WebRTC packet to wish for: 20, 60 or 120. 0: the server's choice."`
	Cadence   int           `default:"0" help:"Milliseconds between messages to wish for: 200, 400, 1000 or 2000. 0: the server's choice."`
	Listeners int           `default:"100" short:"n" help:"How many listeners (${default})."`
	Arrive    time.Duration `default:"5s" help:"All come within this time (${default})."`
	Hold      time.Duration `default:"10s" help:"And then stay for this time (${default})."`
	Curve     string        `default:"ramp" help:"How they arrive: ramp (evenly), flash (each at any instant), steps:N (N groups), file:PATH (a number of seconds a line) (${default})."`
	Procs     int           `default:"0" help:"Over how many processes to spread them, 0: as few as descriptors allow."`

	Patience time.Duration `default:"15s" help:"Who hears nothing for so long fails (${default})."`
	Leave    time.Duration `default:"0s" help:"How long one stays in the mean, 0: to the end."`
	Return   time.Duration `default:"0s" help:"After how long one who left, failed or was cut off comes back in the mean, 0: never."`
	Slow     float64       `default:"0" name:"slow-readers" placeholder:"SHARE" help:"Share of the listeners that read at half the stream's pace. Their gaps count apart."`
	Loss     float64       `default:"0" placeholder:"SHARE" help:"Share of the media packets that WebRTC listeners lose."`
	RED      bool          `name:"red" help:"WebRTC listeners offer RED (RFC 2198)."`
	NACK     bool          `name:"nack" help:"WebRTC listeners offer NACK (RFC 4585) and use it."`
	Light    bool          `help:"WebRTC listeners outside the sample check numbers and times, and don't decrypt."`
	Sample   int           `default:"0" help:"How many listeners' audio is decoded and compared with the programme. 0: one in 1000, at least 2; --sample=-1: none."`
	Foreign  int           `default:"0" help:"How many ffmpeg processes listen beside them."`

	Token    string `env:"EARSHOT_CROWD_TOKEN" placeholder:"TOKEN" help:"Consent of the server's operator. Needed wherever the target is not a loopback address."`
	CA       string `name:"ca" placeholder:"FILE" type:"existingfile" help:"Certificates to trust beside the system's, in PEM form."`
	Insecure bool   `help:"Trust any certificate. Loopback addresses only."`
	Seed     uint64 `default:"0" help:"Of all chance, to repeat a run. 0: another each time."`

	JSON string `name:"json" placeholder:"FILE" help:"Write the report as JSON. -: to standard output, instead of words."`
	HTML string `name:"html" placeholder:"FILE" help:"Write the report as a page with plots."`

	Quiet bool `short:"q" help:"Don't show how it goes while it goes."`
}

// errNotFine is the end of a run that went through, but not well; the report has said why.
var errNotFine = errors.New("not all joined, or not all without a gap; the report says why")

// Help is what --help adds.
func (c *crowdCmd) Help() string {
	return `A crowd of simulated listeners. Each connects, listens as a real player does, checks that every frame arrives, and
models a player's buffer: a gap is an underrun of it. The exit status is 0 only if all joined and none had a gap, 2 if not, and 1 if
it could not begin.

  earshot crowd --url http://127.0.0.1:8080/e/demo --rung push --listeners 1000 --arrive 5s --hold 10s --json out.json

Servers that are not on a loopback address are asked first, with --token, whether they consent (see PROTOCOL.md).`
}

// Run is 'earshot crowd'.
func (c *crowdCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cfg := crowd.Config{
		URL: c.URL[0], Also: c.URL[1:], Rung: c.Rung, Packet: c.Packet, Cadence: c.Cadence, Listeners: c.Listeners, Arrive: c.Arrive, Hold: c.Hold,
		Curve: c.Curve, Procs: c.Procs, Worker: []string{self, "crowd-worker"}, Patience: c.Patience, Leave: c.Leave, Return: c.Return,
		Slow: c.Slow, Loss: c.Loss, RED: c.RED, NACK: c.NACK, Light: c.Light, Sample: c.Sample, Foreign: c.Foreign, Token: c.Token, CA: c.CA,
		Insecure: c.Insecure, Seed: c.Seed,
	}
	if err := c.claim(); err != nil {
		return err
	}
	if !c.Quiet {
		cfg.Live = crowd.NewView(os.Stderr, isTerminal(os.Stderr), c.Listeners).Show
	}
	report, err := crowd.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if err := c.write(report); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if !report.OK() {
		return errNotFine
	}
	return nil
}

// claim makes the report's files, so that a wrong path is not noticed after the run.
func (c *crowdCmd) claim() error {
	for flag, path := range map[string]string{"--json": c.JSON, "--html": c.HTML} {
		if path == "" || path == "-" {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
		_ = f.Close()
	}
	return nil
}

// write puts the report where it was asked for.
func (c *crowdCmd) write(report *crowd.Report) error {
	if c.JSON != "-" {
		fmt.Print(report)
	}
	if c.JSON != "" {
		b, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		b = append(b, '\n')
		if c.JSON == "-" {
			_, err = os.Stdout.Write(b)
		} else {
			err = os.WriteFile(c.JSON, b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	if c.HTML == "" {
		return nil
	}
	var b bytes.Buffer
	if err := report.WriteHTML(&b); err != nil {
		return err
	}
	return os.WriteFile(c.HTML, b.Bytes(), 0o644)
}

// crowdWorkerCmd is one process of a crowd's; the crowd starts it.
type crowdWorkerCmd struct{}

// Run is 'earshot crowd-worker'.
func (*crowdWorkerCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	signal.Ignore(os.Interrupt) // the terminal sends it to all; the crowd then ends its workers in order
	return crowd.Work(ctx)
}
