package crowd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// job is what one worker does: the listeners first, first+step and so on.
type job struct {
	Config Config    `json:"config"`
	Target target    `json:"target"`
	First  int       `json:"first"`
	Step   int       `json:"step"`
	Start  time.Time `json:"start"` // of the run, the same for all workers
	Due    []int64   `json:"due"`   // when each of its listeners comes, ns from the start
}

// spawn starts a process for a job and passes on the rows that it writes. Its standard input stays open as long as it shall run.
func spawn(ctx context.Context, command []string, j job, rows func(Row)) error {
	cmd := exec.Command(command[0], command[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = in.Close() })
	defer stop()
	err = json.NewEncoder(in).Encode(j)
	lines := json.NewDecoder(bufio.NewReaderSize(out, 64<<10))
	for err == nil {
		var r Row
		if err = lines.Decode(&r); err == nil {
			rows(r)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	_ = in.Close()
	if werr := cmd.Wait(); werr != nil {
		return fmt.Errorf("%w: %s", werr, strings.TrimSpace(complaints.String()))
	}
	return err
}

// serveJob is the other side of spawn.
func serveJob(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := json.NewDecoder(in)
	var j job
	if err := lines.Decode(&j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the process, or when its standard input does
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	w := bufio.NewWriterSize(out, 64<<10)
	enc := json.NewEncoder(w)
	var failed error
	err := work(ctx, j, func(r Row) {
		if err := errors.Join(enc.Encode(&r), w.Flush()); err != nil {
			failed = err
			cancel()
		}
	})
	return errors.Join(err, failed)
}
