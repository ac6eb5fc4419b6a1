//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// startFleet starts Earshot in several processes: a NATS server and the node with the stage beside the crowd, edges on the measured core.
func (b *bench) startFleet(edges int) (*site, error) {
	bin := filepath.Join(b.bin, "nats-server")
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("NATS server: %w", err)
	}
	port, err := freePort("tcp")
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(b.out, "fleet")
	if err := os.RemoveAll(folder); err != nil {
		return nil, fmt.Errorf("folder of the fleet: %w", err)
	}
	s := &site{}
	fail := func(err error) (*site, error) {
		s.stop()
		return nil, err
	}
	nats, err := b.start(task{name: "nats", core: crowdCore, args: []string{bin, "-js", "-a", "127.0.0.1", "-p", fmt.Sprint(port), "-sd", filepath.Join(folder, "nats")}})
	if err != nil {
		return nil, err
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	err = b.await("NATS", func() error {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	if err != nil {
		nats.stop()
		return nil, err
	}
	node := func(name, role string, core int, more ...string) (*child, string, error) {
		tcp, err := freePort("tcp")
		if err != nil {
			return nil, "", err
		}
		udp, err := freePort("udp")
		if err != nil {
			return nil, "", err
		}
		c, err := b.start(task{name: name, core: core, args: append([]string{
			b.earshot, "serve", "--nats", "nats://" + at, "--node-roles", role, "--data", filepath.Join(folder, name), "--log-level", "warn",
			"--listen", fmt.Sprintf("127.0.0.1:%d", tcp), "--udp", fmt.Sprintf("127.0.0.1:%d", udp),
		}, more...)})
		return c, fmt.Sprintf("http://127.0.0.1:%d/e/demo", tcp), err
	}
	heard := func(c *child, url string) error {
		if err := b.await(c.name, func() error { return answers(b.ctx, url+"/hls/index.m3u8") }); err != nil {
			return fmt.Errorf("%w (%s)", err, c.tail())
		}
		return nil
	}
	stage, url, err := node("fleet-stage", "stage", crowdCore, "--demo")
	if err != nil {
		nats.stop()
		return nil, err
	}
	s.beside = []*child{stage, nats} // the node leaves before the server does
	if err := heard(stage, url); err != nil {
		return fail(err)
	}
	for i := range edges {
		edge, url, err := node(fmt.Sprintf("fleet-edge%d", i), "edge", serverCore)
		if err != nil {
			return fail(err)
		}
		s.measured = append(s.measured, edge)
		if err := heard(edge, url); err != nil {
			return fail(err)
		}
		if i > 0 {
			s.others = append(s.others, url)
		} else {
			s.url = url
		}
	}
	if err := b.sleep(3 * time.Second); err != nil {
		return fail(err)
	}
	return s, nil
}
