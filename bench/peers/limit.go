//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	limitDescriptors = 1000 // that a server may open in these trials
	limitAsked       = 1200
	limitPatience    = 5 * time.Second
)

// limits sends more listeners than a server has descriptors for, and asks what the ones too many get.
func (b *bench) limits(p programme, f *figures) error {
	trials := []struct {
		server, limit string
		start         func() (*site, error)
		request       func(u *url.URL) string
	}{
		{"Earshot, push", "1000 descriptors", func() (*site, error) { return b.startEarshot(false, limitDescriptors) }, webSocket},
		{"Earshot, live.ogg", "1000 descriptors", func() (*site, error) { return b.startEarshot(false, limitDescriptors) }, func(u *url.URL) string {
			return get(u.Path+"/live.ogg", u.Host)
		}},
		{"Icecast", "1000 descriptors", func() (*site, error) { return b.startIcecast(p, 50, 0, limitDescriptors, 100_000) }, long},
		{"Icecast", "1000 in <clients>", func() (*site, error) { return b.startIcecast(p, 50, 0, 0, 1000) }, long},
		{"nginx", "1000 descriptors", func() (*site, error) { return b.startNginx(p, limitDescriptors, 19_000) }, long},
		{"nginx", "1000 in worker_connections", func() (*site, error) { return b.startNginx(p, 0, 1000) }, long},
	}
	for _, t := range trials {
		s, err := t.start()
		if err != nil {
			f.Missing["limit of "+t.server] = err.Error()
			continue
		}
		l, err := knock(s, t.request)
		s.stop()
		if err != nil {
			return err
		}
		l.Server, l.Limit = t.server, t.limit
		f.Limits = append(f.Limits, *l)
		fmt.Printf("limit %-20s %-28s served %d of %d, of whom %d were cut off; the others: %v\n", l.Server, l.Limit, l.Served, l.Asked, l.Cut, l.Outcomes)
	}
	return nil
}

func get(path, host string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\n\r\n"
}

func long(u *url.URL) string { return get(u.RequestURI(), u.Host) }

func webSocket(u *url.URL) string {
	return "GET " + u.Path + "/live HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
}

// knock opens connections one after the other, asks on each, and keeps those that were served; each answer is waited for a while.
func knock(s *site, request func(*url.URL) string) (*limit, error) {
	u, err := url.Parse(s.url)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", s.url, err)
	}
	l := &limit{Asked: limitAsked, Outcomes: map[string]int{}}
	var mu sync.Mutex
	var held []net.Conn
	var took []float64
	var all sync.WaitGroup
	for range limitAsked {
		all.Go(func() {
			begun := time.Now()
			conn, outcome := ask(u.Host, request(u))
			mu.Lock()
			defer mu.Unlock()
			if outcome == "" {
				l.Served++
				held = append(held, conn)
				return
			}
			l.Outcomes[outcome]++
			took = append(took, float64(time.Since(begun).Microseconds())/1e3)
		})
		time.Sleep(2 * time.Millisecond) // 500 a second: what is asked is not how fast, but how many
	}
	all.Wait()
	l.AnswerMS = spreadOf(took)
	for _, c := range held {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 64<<10)); err != nil {
			if t, ok := errors.AsType[net.Error](err); !ok || !t.Timeout() {
				l.Cut++
			}
		}
		_ = c.Close()
	}
	return l, nil
}

// ask gives the connection if it was served, else what happened instead.
func ask(host, request string) (net.Conn, string) {
	d := net.Dialer{Timeout: limitPatience}
	conn, err := d.Dial("tcp", host)
	if err != nil {
		return nil, "no connection"
	}
	_ = conn.SetDeadline(time.Now().Add(limitPatience))
	outcome := ""
	if _, err = conn.Write([]byte(request)); err == nil {
		var r *http.Response
		if r, err = http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
			if r.StatusCode == http.StatusOK || r.StatusCode == http.StatusSwitchingProtocols {
				return conn, ""
			}
			outcome = "status " + r.Status
			if after := r.Header.Get("Retry-After"); after != "" {
				outcome += ", Retry-After " + after
			}
		}
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		outcome = fmt.Sprintf("nothing for %v", limitPatience)
	} else if err != nil {
		outcome = "cut off without an answer"
	}
	_ = conn.Close()
	return nil, strings.TrimSpace(outcome)
}
