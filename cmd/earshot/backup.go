package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"earshot/internal/app"
	"earshot/internal/backup"
	"earshot/internal/cluster"
)

type backupCmd struct {
	File      string `arg:"" help:"File to write; -: standard output."`
	URL       string `name:"url" placeholder:"URL" help:"Where the running server is. Without it http://127.0.0.1:8080, but not for one that has a domain."`
	Data      string `default:"./data" type:"path" help:"The server's data folder, for the operator's key in it (${default})."`
	Key       string `name:"operator-key" env:"EARSHOT_OPERATOR_KEY" placeholder:"KEY" help:"The operator's key, where the data folder is not at hand."`
	CA        string `name:"ca" placeholder:"FILE" type:"existingfile" help:"Certificates to trust beside the system's, in PEM form."`
	Sessions  bool   `help:"Also what keeps browsers signed in. Without it, people open their links once more after a restore."`
	Overwrite bool   `help:"Replace the file if it is there, once the new one is whole."`
	Quiet     bool   `short:"q" help:"Don't show how it goes."`
}

// Help is what --help adds.
func (c *backupCmd) Help() string {
	return `Asks a running server for everything that must survive (events, invites, figures, secrets, the operator's key, recordings up to their last
whole segment), checks it as it comes, and gives the file its name only once it is whole and on disk. Events go on meanwhile. Whoever has the
file is the operator: keep it as you keep the key.

  earshot backup --data /var/lib/earshot earshot.tar
  earshot backup - | ssh elsewhere 'cat >earshot.tar'

'earshot restore' makes a data folder of it.`
}

type restoreCmd struct {
	File  string `arg:"" help:"A file that 'earshot backup' wrote; -: standard input."`
	Data  string `required:"" type:"path" placeholder:"DIR" help:"Folder to restore into: empty, or not there yet."`
	Quiet bool   `short:"q" help:"Don't show how it goes."`
}

// Help is what --help adds.
func (c *restoreCmd) Help() string {
	return `Makes a data folder of a backup: the whole of it, or, where the file is cut or damaged, nothing. Run it as the user as whom the server
runs, then start the server on that folder. Sessions of browsers are gone unless the backup was made with --sessions.

  earshot restore earshot.tar --data /var/lib/earshot`
}

// Run is `earshot backup`.
func (c *backupCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ask, err := c.request(ctx)
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	if c.File == "-" && isTerminal(os.Stdout) {
		return errors.New("a backup is no text: name a file, or send standard output elsewhere")
	}
	if _, err := os.Lstat(c.File); err == nil && c.File != "-" && !c.Overwrite {
		return fmt.Errorf("%s is there already: name another file, or say --overwrite", c.File)
	}
	answer, err := client.Do(ask)
	if err != nil {
		return fmt.Errorf("ask the server for a backup: %w; is it running, and is --url right?", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return refusal(answer)
	}
	shown := newProgress(os.Stderr, c.Quiet)
	var sum backup.Summary
	if c.File == "-" {
		sum, err = copyBackup(os.Stdout, answer.Body, shown)
	} else {
		err = replaceFile(c.File, func(w io.Writer) error {
			sum, err = copyBackup(w, answer.Body, shown)
			return err
		})
	}
	shown.end()
	if ctx.Err() != nil {
		return errors.New("interrupted; no backup was written")
	}
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if !c.Quiet {
		fmt.Fprintf(os.Stderr, "Backed up %d records and %d segments of recordings, %s. Left out: %s.\n",
			sum.Records, sum.Done, size(sum.Bytes), strings.Join(sum.LeftOut, ", "))
	}
	return incomplete(sum)
}

// errIncomplete is the end of a backup or restore that is whole but for what the server could not read.
var errIncomplete = errors.New("parts of recordings are missing, as the server could not read them when the backup was made")

func incomplete(sum backup.Summary) error {
	if len(sum.Missing) == 0 {
		return nil
	}
	first := sum.Missing[0]
	return fmt.Errorf("%w: %d segments, the first is %d of event %s", errIncomplete, len(sum.Missing), first.Number, first.Event)
}

// request makes the request, and sends the key nowhere where others could read it on the way.
func (c *backupCmd) request(ctx context.Context) (*http.Request, error) {
	if c.URL == "" {
		// Such a server listens elsewhere, and whoever listens there would get the key.
		if _, err := os.Stat(filepath.Join(c.Data, "certificates")); err == nil {
			return nil, errors.New("this node has certificates of its own: name it by its domain, --url https://NAME")
		}
		c.URL = "http://127.0.0.1:8080"
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("--url %q: want http:// or https:// and a host, such as http://127.0.0.1:8080", c.URL)
	}
	if host := u.Hostname(); u.Scheme == "http" && host != "localhost" {
		if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
			return nil, fmt.Errorf("--url %s: the operator's key would go over the network unencrypted; use https://, or run this on the server itself", c.URL)
		}
	}
	key := c.Key
	if key == "" {
		b, err := os.ReadFile(filepath.Join(c.Data, "operator.key"))
		if err != nil {
			return nil, fmt.Errorf("find the operator's key: %w; name the server's folder with --data, or give the key as EARSHOT_OPERATOR_KEY", err)
		}
		key = strings.TrimSpace(string(b))
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + "/api/v1/backup"
	if c.Sessions {
		u.RawQuery = "sessions=true"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+key)
	return r, nil
}

// client follows no redirect and no proxy that the environment names: the key goes to whom it was given for.
func (c *backupCmd) client() (*http.Client, error) {
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		DisableCompression:    true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca %s: there is no certificate in PEM form in it", c.CA)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// refusal is what the server said instead.
func refusal(answer *http.Response) error {
	var problem struct{ Detail string }
	b, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // what came is enough to say something
	switch {
	case json.Unmarshal(b, &problem) == nil && problem.Detail != "":
		return fmt.Errorf("the server refused (%s): %s", answer.Status, problem.Detail)
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return fmt.Errorf("the server is elsewhere: name %q with --url", answer.Header.Get("Location"))
	}
	return fmt.Errorf("the server answered %s; is --url that of an Earshot server?", answer.Status)
}

// copyBackup copies a backup and checks it on the way.
func copyBackup(to io.Writer, from io.Reader, shown *progress) (backup.Summary, error) {
	counted := io.TeeReader(from, io.MultiWriter(to, shown))
	sum, err := backup.Read(counted, shown)
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(counted, 64<<10)) // what follows the end: tar's own
	}
	if errors.Is(err, backup.ErrCut) {
		err = fmt.Errorf("the server broke off; its log says why: %w", err)
	}
	return sum, err
}

// replaceFile writes a file under another name, and gives it its own once it is whole and on disk.
func replaceFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.part") // only its owner can read it
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := write(f); err != nil {
		return full(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return full(err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return cluster.SyncFolder(filepath.Dir(name))
}

// full says in plain words what the system says of a disk.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("there is no room for it; free some, or write it elsewhere: %w", err)
	}
	return err
}

// Run is `earshot restore`.
func (c *restoreCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	from := io.Reader(os.Stdin)
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		from = f
	}
	shown := newProgress(os.Stderr, c.Quiet)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	sum, err := app.Restore(ctx, io.TeeReader(&interruptible{ctx, from}, shown), c.Data, version, log, shown)
	shown.end()
	if err != nil {
		return full(err)
	}
	if !c.Quiet {
		fmt.Fprintf(os.Stderr, "Restored %d records and %d segments of recordings, of %s, made by Earshot %s. Start the server with --data %s.\n",
			sum.Records, sum.Done, sum.Made.Local().Format(time.DateTime), sum.By, c.Data)
	}
	return incomplete(sum)
}

// interruptible ends a reading that nobody wants any more.
type interruptible struct {
	ctx  context.Context // of the one command that reads
	from io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, errors.New("interrupted")
	}
	return i.from.Read(p)
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
