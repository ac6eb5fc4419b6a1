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
	Config  configCmd        `cmd:"" help:"Print the settings with which serve would run, and where each comes from."`
	Crowd   crowdCmd         `cmd:"" help:"Send a crowd of simulated listeners to an event, and report what they hear."`
	Backup  backupCmd        `cmd:"" help:"Write all that must survive of a running server into one file."`
	Restore restoreCmd       `cmd:"" help:"Make a data folder of a backup."`
	Worker  crowdWorkerCmd   `cmd:"" name:"crowd-worker" hidden:""`
	Version kong.VersionFlag `help:"Print the version and exit."`
}

// asked lets people ask for help as other programs let them: 'earshot help crowd' is 'earshot crowd --help'.
func asked(args []string) []string {
	switch {
	case len(args) == 0:
		return args
	case args[0] == "help":
		return append(args[1:], "--help")
	case args[0] == "version":
		return []string{"--version"}
	}
	return args
}

func main() {
	var c cli
	s := newSettings(os.Environ())
	parser := kong.Must(&c, append(s.options(), kong.Name("earshot"), kong.Vars{"version": version},
		kong.Description("Live voice events: a host and speakers talk from their browsers, anyone with the link listens."))...)
	k, err := parser.Parse(asked(os.Args[1:]))
	if err != nil {
		if wrong, ok := errors.AsType[*kong.ParseError](err); ok && len(os.Args) < 2 { // nothing was asked for: show what there is
			_ = wrong.Context.PrintUsage(false)
		}
		fmt.Fprintln(os.Stderr, "earshot:", s.explain(err))
		fmt.Fprintln(os.Stderr, "'earshot --help' lists the commands, 'earshot serve --help' the flags of one.")
		os.Exit(1)
	}
	s.parsed(k)
	switch err := k.Run(); {
	case errors.Is(err, errNotFine), errors.Is(err, errIncomplete):
		fmt.Fprintln(os.Stderr, "earshot:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "earshot:", s.explain(err))
		os.Exit(1)
	}
}
