package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Format is the version of everything that lies in a data folder: the records of the store, the recordings, the files beside them. It
// rises when a program of the version before would misread what is there; a new field that it may ignore is no new version.
const Format = 1

// The files by which a folder says what it is.
const (
	formatFile  = "format"    // its version; missing in folders of version 0
	restoreMark = "restoring" // a folder that a restore builds, or left behind
)

// formatRecord is what the file says.
type formatRecord struct {
	Format int    `json:"format"`
	By     string `json:"by"` // the program that made the folder, or brought it to this version: for people
}

// step brings a folder from the version before to this one. It runs before anything else looks into the folder, and must be one that can be
// repeated: the commit point is the file that says the new version, and a crash before that has the whole step run again.
type step struct {
	to   int
	what string // for the log
	run  func(dir string) error
}

var steps = []step{
	{to: 1, what: "recordings become their owner's alone to read, and what crashes left between them goes", run: guardRecordings},
}

// judge says which version the folder has, and refuses what this program must not touch: a newer version, and what a restore left half-way.
// It writes nothing.
func (f *folder) judge(by string) (have int, err error) {
	if _, err := os.Lstat(filepath.Join(f.path, restoreMark)); err == nil {
		return 0, errors.New("a restore into it did not get to its end; empty the folder and restore the backup again")
	}
	r, err := f.format()
	if err != nil {
		return 0, err
	}
	if r.Format > Format {
		writer, starter := "a newer Earshot", "a newer Earshot"
		if r.By != "" {
			writer, starter = "Earshot "+r.By, "Earshot "+r.By+" or newer"
		}
		if by == "" {
			by = "of no known version"
		}
		return 0, fmt.Errorf("its format is version %d, written by %s; this is Earshot %s, which knows no version above %d. "+
			"Start it with %s, or name another folder with --data, into which you may restore a backup that this version made",
			r.Format, writer, by, Format, starter)
	}
	return r.Format, nil
}

// bringUp makes the folder one of this program's version: a new one says so from the start, an older one is brought up step by step.
func (f *folder) bringUp(have int, by string, log *slog.Logger) error {
	if have < 0 {
		return f.stamp(Format, by)
	}
	for _, s := range steps {
		if s.to <= have {
			continue
		}
		log.Info("bringing the data folder to a newer format", "folder", f.path, "version", s.to, "what", s.what)
		if err := s.run(f.path); err != nil {
			return fmt.Errorf("bring it from format version %d to %d: %w", s.to-1, s.to, plain(err))
		}
		if err := f.stamp(s.to, by); err != nil {
			return err
		}
	}
	return nil
}

// format reads which version the folder has: -1 for one that holds nothing of ours yet.
func (f *folder) format() (formatRecord, error) {
	b, err := os.ReadFile(filepath.Join(f.path, formatFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, name := range []string{"nats", "node", "operator.key", "events"} {
			if _, err := os.Lstat(filepath.Join(f.path, name)); err == nil {
				return formatRecord{Format: 0}, nil
			}
		}
		return formatRecord{Format: -1}, nil
	case err != nil:
		return formatRecord{}, fmt.Errorf("read its format's version: %w", err)
	}
	var r formatRecord
	if len(b) > 4096 || json.Unmarshal(bytes.TrimSpace(b), &r) != nil || r.Format < 1 {
		return formatRecord{}, fmt.Errorf("its file %q does not say a version; put it back from a backup, or restore the whole folder", formatFile)
	}
	r.By = strings.Map(printable, r.By)
	return r, nil
}

// printable keeps what a file says from acting on a terminal.
func printable(c rune) rune {
	if c < ' ' || c > '~' {
		return -1
	}
	return c
}

// stamp says the folder's version, at once or not at all.
func (f *folder) stamp(version int, by string) error {
	b, err := json.Marshal(formatRecord{Format: version, By: by})
	if err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(f.path, formatFile), append(b, '\n')); err != nil {
		return fmt.Errorf("store its format's version: %w", plain(err))
	}
	return nil
}

// guardRecordings is the step to version 1. Before it, segments were readable by everybody whom the umask and the folders let through, the
// recordings of events that are not listed among them. Temporary files of writes that a crash cut off were never removed.
func guardRecordings(dir string) error {
	root := filepath.Join(dir, "events")
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == root: // nothing was recorded
			return nil
		case err != nil:
			return err
		case d.IsDir():
			return os.Chmod(name, 0o700)
		case !d.Type().IsRegular():
			return nil
		case leftover(d.Name()):
			return os.Remove(name)
		}
		return os.Chmod(name, 0o600)
	})
}

// leftover says whether this is the name of a segment's temporary file: the segment's, the time in hex, and an ending.
func leftover(name string) bool {
	rest, ok := strings.CutSuffix(name, ".tmp")
	segment, stamp, found := strings.Cut(rest, ".m4s.")
	return ok && found && madeOf(segment, "0123456789") && madeOf(stamp, "0123456789abcdef")
}

func madeOf(s, of string) bool { return s != "" && strings.Trim(s, of) == "" }
