package radio

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Tool is an ffmpeg, looked for when it is first needed. Its methods are safe from any goroutine.
type Tool struct {
	name string

	mu    sync.Mutex
	path  string
	can   [Forms]bool
	err   error
	until time.Time // err is believed so long
}

const (
	probeWait  = 10 * time.Second // for ffmpeg to say what it can
	lookAgain  = 30 * time.Second // after it was not found: it may be installed meanwhile
	maxListing = 1 << 20
)

// Find prepares to use the ffmpeg of this name or path; empty: "ffmpeg", on the PATH.
func Find(name string) *Tool {
	if name == "" {
		name = "ffmpeg"
	}
	return &Tool{name: name}
}

// ErrNone says that there is no ffmpeg, or none with the codec.
var ErrNone = errors.New("radio: no ffmpeg that can do this")

// For gives the path of the program if it can make this form, else an error that wraps ErrNone.
func (t *Tool) For(f Form) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" && time.Now().After(t.until) {
		if t.err = t.look(); t.err != nil {
			t.until = time.Now().Add(lookAgain)
		}
	}
	switch {
	case t.path == "":
		return "", t.err
	case !t.can[f]:
		return "", fmt.Errorf("%w: %s was built without the encoder %s", ErrNone, t.path, shapes[f].encoder)
	}
	return t.path, nil
}

// look finds the program and asks it for its encoders.
func (t *Tool) look() error {
	path, err := exec.LookPath(t.name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNone, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-hide_banner", "-encoders")
	cmd.Env = environment()
	cmd.WaitDelay = time.Second
	out := tail{max: maxListing}
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s -encoders: %w", ErrNone, path, err)
	}
	// " A....D aac   AAC (Advanced Audio Coding)"
	for line := range strings.Lines(out.String()) {
		words := strings.Fields(line)
		for f := range t.can {
			if len(words) > 1 && words[0][0] == 'A' && words[1] == shapes[f].encoder {
				t.can[f] = true
			}
		}
	}
	t.path = path
	return nil
}

// tail keeps the last bytes of what a child says.
type tail struct {
	max int
	mu  sync.Mutex
	b   []byte
}

// Write is io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - t.max; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

// String is what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
