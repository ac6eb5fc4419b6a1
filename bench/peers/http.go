//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// site is a server that runs, and what belongs to it.
type site struct {
	kind     string   // servers of one kind use the same at rest; empty: it is measured each time
	url      string   // where the crowd goes
	others   []string // further addresses, where several processes serve the same
	flags    []string // that the crowd needs for it
	inside   int      // the process whose network namespace it lives in; 0: ours
	measured []*child // whose CPU and memory count, on serverCore
	beside   []*child // what they need, on crowdCore
	feeds    []*feeder
}

func (s *site) urls() []string { return append([]string{s.url}, s.others...) }

func (s *site) stop() {
	for _, c := range s.measured {
		c.stop()
	}
	for _, f := range s.feeds {
		f.stop()
	}
	for _, c := range s.beside {
		c.stop()
	}
}

// config writes a file that a server reads.
func (b *bench) config(name, text string) (string, error) {
	path := filepath.Join(b.out, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	return path, nil
}

// answers says whether the address gives this status.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err // says whom it asked for what
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s", url, r.Status)
	}
	return nil
}

// startEarshot starts `earshot serve --demo` and waits until there is sound.
func (b *bench) startEarshot(secure bool, nofile int, more ...string) (*site, error) {
	tcp, err := freePort("tcp")
	if err != nil {
		return nil, err
	}
	udp, err := freePort("udp")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(b.out, "earshot-data")
	if err := os.RemoveAll(data); err != nil {
		return nil, fmt.Errorf("data of Earshot: %w", err)
	}
	s := &site{kind: "earshot", url: fmt.Sprintf("http://127.0.0.1:%d/e/demo", tcp)}
	args := []string{
		b.earshot, "serve", "--demo", "--listen", fmt.Sprintf("127.0.0.1:%d", tcp), "--udp", fmt.Sprintf("127.0.0.1:%d", udp),
		"--data", data, "--log-level", "warn",
	}
	if secure {
		cert, key, err := b.certificate()
		if err != nil {
			return nil, err
		}
		args = append(args, "--cert", cert, "--key", key)
		s.url = strings.Replace(s.url, "http:", "https:", 1)
		s.flags = []string{"--insecure"}
	}
	c, err := b.start(task{name: "earshot", core: serverCore, args: append(args, more...), nofile: nofile})
	if err != nil {
		return nil, err
	}
	s.measured = []*child{c}
	if secure {
		return s, b.sleep(4 * time.Second)
	}
	if err := b.await("Earshot", func() error { return answers(b.ctx, s.url+"/hls/index.m3u8") }); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w (%s)", err, c.tail())
	}
	return s, b.sleep(3 * time.Second) // of programme, for bursts and segments
}

const icecastPassword = "bench"

// startIcecast starts an Icecast that is fed a page per so many frames, and as many that relay it; where there are such, the crowd is sent to them.
func (b *bench) startIcecast(p programme, many, relays, nofile, clients int) (*site, error) {
	s := &site{}
	origin := 0
	for i := range 1 + relays {
		port, err := freePort("tcp")
		if err != nil {
			return nil, err
		}
		relay := ""
		if i > 0 {
			relay = fmt.Sprintf("<relay><server>127.0.0.1</server><port>%d</port><mount>/live.ogg</mount><local-mount>/live.ogg</local-mount><on-demand>0</on-demand></relay>", origin)
		} else {
			origin = port
		}
		logs := filepath.Join(b.out, "icecast")
		if err := os.MkdirAll(logs, 0o777); err != nil {
			return nil, fmt.Errorf("logs of Icecast: %w", err)
		}
		_ = os.Chmod(logs, 0o777) // it runs as nobody
		conf, err := b.config(fmt.Sprintf("icecast%d.xml", i), fmt.Sprintf(icecastXML, clients, icecastPassword, port, relay, logs))
		if err != nil {
			return nil, err
		}
		core := serverCore
		if i == 0 && relays > 0 {
			core = crowdCore // the origin has no listeners but its relays
		}
		c, err := b.start(task{name: fmt.Sprintf("icecast%d", i), core: core, args: []string{"icecast2", "-c", conf}, user: true, nofile: nofile})
		if err != nil {
			s.stop()
			return nil, err
		}
		if core == serverCore {
			s.measured = append(s.measured, c)
		} else {
			s.beside = append(s.beside, c)
		}
		if i == 0 {
			auth := base64.StdEncoding.EncodeToString([]byte("source:" + icecastPassword))
			err := b.await("Icecast", func() error {
				f, err := p.ogg(b.ctx, fmt.Sprintf("127.0.0.1:%d", port), "/live.ogg", auth, many)
				if err == nil {
					s.feeds = append(s.feeds, f)
				}
				return err
			})
			if err != nil {
				s.stop()
				return nil, fmt.Errorf("%w (%s)", err, c.tail())
			}
		}
		if i > 1 {
			s.others = append(s.others, s.url)
		}
		s.url = fmt.Sprintf("http://127.0.0.1:%d/live.ogg", port)
	}
	if err := b.sleep(4 * time.Second); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// icecastXML: a burst of 12 KB is 3 s, as Earshot gives; the queue holds two minutes; all else as Debian ships it.
const icecastXML = `<icecast>
<limits><clients>%d</clients><sources>4</sources><queue-size>524288</queue-size><client-timeout>30</client-timeout>
<header-timeout>15</header-timeout><source-timeout>10</source-timeout><burst-on-connect>1</burst-on-connect><burst-size>12000</burst-size></limits>
<authentication><source-password>%s</source-password><admin-user>admin</admin-user><admin-password>bench</admin-password></authentication>
<hostname>localhost</hostname>
<listen-socket><port>%d</port><bind-address>127.0.0.1</bind-address></listen-socket>
<fileserve>0</fileserve>
%s
<paths><basedir>/usr/share/icecast2</basedir><logdir>%s</logdir><webroot>/usr/share/icecast2/web</webroot><adminroot>/usr/share/icecast2/admin</adminroot></paths>
<logging><accesslog>access.log</accesslog><errorlog>error.log</errorlog><loglevel>2</loglevel><logsize>10000</logsize></logging>
<security><chroot>0</chroot></security>
</icecast>
`

// startNginx starts an nginx over a folder that ffmpeg fills with segments of 2 s, from the same packets.
func (b *bench) startNginx(p programme, nofile, connections int) (*site, error) {
	port, err := freePort("tcp")
	if err != nil {
		return nil, err
	}
	root := filepath.Join(b.out, "hls")
	if err := errorsOf(os.RemoveAll(root), os.MkdirAll(root, 0o755)); err != nil {
		return nil, fmt.Errorf("nginx's folder: %w", err)
	}
	source := filepath.Join(b.out, "programme.ogg")
	if err := p.save(source); err != nil {
		return nil, err
	}
	s := &site{url: fmt.Sprintf("http://127.0.0.1:%d/live.m3u8", port)}
	mux, err := b.start(task{name: "ffmpeg", core: crowdCore, args: []string{
		"ffmpeg", "-hide_banner", "-loglevel", "warning", "-nostdin", "-re", "-stream_loop", "-1", "-i", source, "-c:a", "copy",
		"-f", "hls", "-hls_time", "2", "-hls_list_size", "6", "-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", "init.mp4",
		"-hls_flags", "delete_segments+temp_file+program_date_time", "-hls_segment_filename", filepath.Join(root, "s%d.m4s"), filepath.Join(root, "live.m3u8"),
	}})
	if err != nil {
		return nil, err
	}
	s.beside = []*child{mux}
	conf, err := b.config("nginx.conf", fmt.Sprintf(nginxConf, filepath.Join(b.out, "nginx.pid"), filepath.Join(b.out, "nginx-error.log"), connections, b.out, port, root))
	if err != nil {
		s.stop()
		return nil, err
	}
	c, err := b.start(task{name: "nginx", core: serverCore, args: []string{"/usr/sbin/nginx", "-p", b.out, "-c", conf}, nofile: nofile})
	if err != nil {
		s.stop()
		return nil, err
	}
	s.measured = []*child{c}
	if err := b.await("nginx", func() error { return answers(b.ctx, s.url) }); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w (%s; %s)", err, c.tail(), mux.tail())
	}
	return s, b.sleep(4 * time.Second)
}

// nginxConf: one worker, its files kept open, no log; a connection is kept for the next requests, as by default.
const nginxConf = `daemon off;
worker_processes 1;
pid %s;
error_log %s crit;
events { worker_connections %d; multi_accept on; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 75;
  keepalive_requests 100000;
  open_file_cache max=100 inactive=20s;
  open_file_cache_valid 1s;
  types { application/vnd.apple.mpegurl m3u8; video/iso.segment m4s; video/mp4 mp4; }
  client_body_temp_path %[4]s/nginx-tmp;
  proxy_temp_path %[4]s/nginx-tmp;
  fastcgi_temp_path %[4]s/nginx-tmp;
  uwsgi_temp_path %[4]s/nginx-tmp;
  scgi_temp_path %[4]s/nginx-tmp;
  server { listen 127.0.0.1:%d backlog=4096; root %s; }
}
`

// save writes a round of the programme as an Ogg file.
func (p programme) save(path string) error {
	var buf bytes.Buffer
	o := oggStream{w: &buf}
	err := o.begin()
	for n := 0; n+50 <= len(p) && err == nil; n += 50 {
		err = o.page(uint64(n+50)*960, p[n:n+50])
	}
	if err == nil {
		err = os.WriteFile(path, buf.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the programme: %w", err)
	}
	return nil
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
