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
	"sync"
	"time"
)

// job is what one worker does: the listeners first, first+step and so on.
type job struct {
	Config Config  `json:"config"`
	Target target  `json:"target"`
	First  int     `json:"first"`
	Step   int     `json:"step"`
	Due    []int64 `json:"due"` // when each of its listeners comes, ns from the start
}

// begin is what a worker waits for when it is ready: the run's beginning, the same for all.
type begin struct {
	Start time.Time `json:"start"`
}

// spawn starts a process for a job and passes on the rows that it writes. It calls ready when the process can begin, or cannot, and then
// waits for the start. The process's standard input stays open as long as it shall run.
func spawn(ctx context.Context, command []string, j job, ready func(), start <-chan time.Time, rows func(Row)) error {
	once := sync.OnceFunc(ready)
	defer once()
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
	tell := json.NewEncoder(in)
	lines := json.NewDecoder(bufio.NewReaderSize(out, 64<<10))
	var r Row
	if err = tell.Encode(j); err == nil {
		err = lines.Decode(&r) // empty: it is ready
	}
	once()
	if err == nil {
		err = tell.Encode(begin{<-start})
	}
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
	w := bufio.NewWriterSize(out, 64<<10)
	enc := json.NewEncoder(w)
	write := func(r *Row) error { return errors.Join(enc.Encode(r), w.Flush()) }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	err := work(ctx, j, func() (time.Time, error) {
		if err := write(&Row{}); err != nil {
			return time.Time{}, err
		}
		var b begin
		if err := lines.Decode(&b); err != nil {
			return b.Start, fmt.Errorf("wait for the start: %w", err)
		}
		go func() { // ends with the process, or when its standard input does
			_, _ = io.Copy(io.Discard, in)
			cancel()
		}()
		return b.Start, nil
	}, func(r Row) {
		if err := write(&r); err != nil {
			failed = err
			cancel()
		}
	})
	return errors.Join(err, failed)
}
