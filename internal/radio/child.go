package radio

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// environment is all that a child gets of ours: a service's secrets stand in its environment.
func environment() []string { return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"} }

const (
	maxComplaint = 2 << 10 // bytes of what a child said last
	readSize     = 16 << 10
)

// child is one ffmpeg with the two goroutines that feed and read it. It belongs to one goroutine, which must call end.
type child struct {
	cmd      *exec.Cmd
	in       chan []byte   // what it is to read; closing it is its end of file
	out      chan []byte   // what it wrote; closed when it says no more
	kill     func()        // at once
	gone     chan struct{} // closed by end
	wg       sync.WaitGroup
	said     tail
	finished bool // in is closed
}

// spawn starts a child whose first input is head.
func spawn(ctx context.Context, path string, args []string, head []byte) (*child, error) {
	ctx, kill := context.WithCancel(ctx)
	c := &child{in: make(chan []byte), out: make(chan []byte), kill: kill, gone: make(chan struct{}), said: tail{max: maxComplaint}}
	c.cmd = exec.CommandContext(ctx, path, args...)
	c.cmd.Env = environment()
	c.cmd.Stderr = &c.said
	c.cmd.WaitDelay = time.Second // a grandchild may hold its standard error open
	apart(c.cmd)
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		kill()
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		kill()
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		kill()
		return nil, err
	}
	offer(c.cmd.Process.Pid)
	c.wg.Go(func() { c.write(stdin, head) })
	c.wg.Go(func() { c.read(stdout) })
	return c, nil
}

// write feeds the child until in is closed. Once it takes no more, its end is told by out.
func (c *child) write(stdin io.WriteCloser, b []byte) {
	defer stdin.Close()
	for more := true; more; {
		if _, err := stdin.Write(b); err != nil {
			return
		}
		select {
		case b, more = <-c.in:
		case <-c.gone:
			return
		}
	}
}

func (c *child) read(stdout io.Reader) {
	defer close(c.out)
	buf := make([]byte, readSize)
	for {
		n, err := stdout.Read(buf)
		if n > 0 {
			select {
			case c.out <- append([]byte(nil), buf[:n]...):
			case <-c.gone:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// finish tells the child that nothing more comes.
func (c *child) finish() {
	if !c.finished {
		c.finished = true
		close(c.in)
	}
}

// end waits until the child is gone, and kills it where it is not by itself. It says why the child ended, nil if in good order.
func (c *child) end(kill bool) error {
	if kill {
		c.kill()
	} else {
		defer time.AfterFunc(time.Second, c.kill).Stop()
	}
	close(c.gone)
	c.wg.Wait() // the pipes are read before Wait closes them
	err := c.cmd.Wait()
	c.kill()
	if err == nil {
		return nil
	}
	if said := strings.Join(strings.Fields(c.said.String()), " "); said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}
