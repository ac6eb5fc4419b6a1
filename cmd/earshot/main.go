// Command earshot is the live voice event server: `earshot serve` runs a node.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"
)

// version is set by the linker for a release.
var version = "dev"

type cli struct {
	Serve   serveCmd         `cmd:"" help:"Run a node: events, stages, listeners, on one machine."`
	Crowd   crowdCmd         `cmd:"" help:"Send a crowd of simulated listeners to an event, and report what they hear."`
	Worker  crowdWorkerCmd   `cmd:"" name:"crowd-worker" hidden:""`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	var c cli
	k := kong.Parse(&c, kong.Name("earshot"), kong.UsageOnError(), kong.Vars{"version": version},
		kong.Description("Live voice events: a host and speakers talk from their browsers, anyone with the link listens."))
	switch err := k.Run(); {
	case errors.Is(err, errNotFine):
		fmt.Fprintln(os.Stderr, "earshot:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "earshot:", err)
		os.Exit(1)
	}
}
