//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Cores: what is measured has one for itself, and all else shares the other.
const (
	serverCore = 0
	crowdCore  = 1
)

// bench is one run's folder and commands.
type bench struct {
	rest                          restOf          // share of a core that each kind of server uses without listeners
	ctx                           context.Context // of the run; everything ends with it
	out                           string          // folder of logs, configurations and what peers write
	bin                           string          // of what scripts/peers.sh built
	earshot, listener, bare, self string          // binaries
}

// A server at rest is measured once for each kind whose name is kept here.
type restOf = map[string]float64

// child is a process of ours.
type child struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader // its standard output, where asked for
	ended chan struct{}
	err   error // of Wait; read after ended
	log   string
}

// task is what to start, and how.
type task struct {
	name   string
	core   int
	args   []string
	env    []string
	user   bool // as nobody, if we are root: some servers refuse to be root
	stdin  io.Reader
	piped  bool // keep its standard input open, for those that end with it
	talks  bool // its standard output is read by us
	inside int  // a process whose network namespace to enter; 0: none
	nofile int  // descriptors it may open; 0: as many as we may
}

// start starts a child, which dies at the latest with this process.
func (b *bench) start(t task) (*child, error) {
	args := append([]string{"taskset", "-c", strconv.Itoa(t.core)}, t.args...)
	if t.inside > 0 {
		args = append([]string{"nsenter", "--net", "-t", strconv.Itoa(t.inside)}, args...)
	}
	if t.nofile > 0 {
		args = append([]string{"prlimit", fmt.Sprintf("--nofile=%d:%d", t.nofile, t.nofile)}, args...)
	}
	c := &child{name: t.name, cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{}), log: filepath.Join(b.out, t.name+".log")}
	logFile, err := os.OpenFile(c.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", t.name, err)
	}
	defer func() { _ = logFile.Close() }()
	c.cmd.Env = append(os.Environ(), t.env...)
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.Stdin = logFile, logFile, t.stdin
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if t.user && os.Getuid() == 0 {
		c.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	if t.piped {
		if c.in, err = c.cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("start %s: %w", t.name, err)
		}
	}
	if t.talks {
		c.cmd.Stdout = nil
		out, err := c.cmd.StdoutPipe()
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", t.name, err)
		}
		c.lines = bufio.NewReader(out)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", t.name, err)
	}
	if !t.talks { // Wait closes the pipe, so who reads it waits first
		go func() {
			c.err = c.cmd.Wait()
			close(c.ended)
		}()
	}
	return c, nil
}

// line reads one line of what the child says.
func (c *child) line() (string, error) {
	s, err := c.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s said nothing: %w (%s)", c.name, err, c.tail())
	}
	return strings.TrimSpace(s), nil
}

// rest reads all that a talking child still says, and waits for its end.
func (c *child) rest() ([]byte, error) {
	b, err := io.ReadAll(c.lines)
	c.err = errors.Join(err, c.cmd.Wait())
	close(c.ended)
	if c.err != nil {
		return b, fmt.Errorf("%s: %w (%s)", c.name, c.err, c.tail())
	}
	return b, nil
}

// stop ends the child: asked at first, then not.
func (c *child) stop() {
	if c == nil {
		return
	}
	if c.in != nil {
		_ = c.in.Close()
	}
	select {
	case <-c.ended:
		return
	default:
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	if c.lines != nil {
		kill := time.AfterFunc(5*time.Second, func() { _ = c.cmd.Process.Kill() })
		_, _ = c.rest()
		kill.Stop()
		return
	}
	select {
	case <-c.ended:
	case <-time.After(5 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}

// tail is the end of what the child logged.
func (c *child) tail() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return "no log"
	}
	b = bytes.TrimSpace(b)
	return string(b[max(0, len(b)-400):])
}

// tree is the child and all its descendants.
func (c *child) tree() []int {
	pids := []int{c.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pids[i], pids[i]))
		for f := range bytes.FieldsSeq(b) {
			if pid, err := strconv.Atoi(string(f)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// tick is the unit of /proc/PID/stat, whatever the kernel's HZ (proc(5): USER_HZ).
const tick = 10 * time.Millisecond

// used is the CPU, user and system, of these processes so far.
func used(of []*child) (sum time.Duration, err error) {
	for _, c := range of {
		for _, pid := range c.tree() {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				return 0, fmt.Errorf("CPU of %s: %w (%s)", c.name, err, c.tail())
			}
			// The name in the second field may hold anything; after its bracket, utime is the 12th and stime the 13th.
			f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
			for _, i := range []int{11, 12} {
				n, err := strconv.ParseInt(string(f[i]), 10, 64)
				if err != nil {
					return 0, fmt.Errorf("CPU of %s: %w", c.name, err)
				}
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum, nil
}

// memory is what these processes hold: RSS, and PSS, which counts shared pages once. The kernel's own, sockets' buffers above all, are not in it.
func memory(of []*child) (rss, pss int64, err error) {
	for _, c := range of {
		for _, pid := range c.tree() {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
			if err != nil {
				return 0, 0, fmt.Errorf("memory of %s: %w (%s)", c.name, err, c.tail())
			}
			for line := range bytes.Lines(b) {
				f := bytes.Fields(line)
				if len(f) < 2 {
					continue
				}
				n, _ := strconv.ParseInt(string(f[1]), 10, 64)
				switch string(f[0]) {
				case "Rss:":
					rss += n
				case "Pss:":
					pss += n
				}
			}
		}
	}
	return rss, pss, nil
}

// freePort is one that nobody listened on a moment ago.
func freePort(network string) (int, error) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = c.Close() }()
		return c.LocalAddr().(*net.UDPAddr).Port, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// await asks until ok, for ten seconds at most.
func (b *bench) await(what string, ok func() error) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if err = ok(); err == nil {
			return nil
		}
		if err := b.sleep(20 * time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("waited for %s: %w", what, err)
}

func (b *bench) sleep(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return fmt.Errorf("interrupted: %w", b.ctx.Err())
	case <-time.After(d):
		return nil
	}
}
