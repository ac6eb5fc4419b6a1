// Package app puts a node together: it opens the store and the archive, listens, introduces the adapters to each other, keeps
// every event's life going (House), and takes it all down in order. Tests start a node just as the command does: New, then
// Run until its context ends.
package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"earshot/internal/archive"
	"earshot/internal/certs"
	"earshot/internal/cluster"
	"earshot/internal/fan"
	"earshot/internal/fan/sweep"
	"earshot/internal/rtc"
	"earshot/internal/web"
	"earshot/ui"
)

// backIn is what listeners are told when the process ends in order: a supervisor restarts it within seconds.
const backIn = 5 * time.Second

// shutdownGrace bounds the orderly end. What has not ended by then is cut.
const shutdownGrace = 10 * time.Second

// App is one node.
type App struct {
	cfg  Config
	log  *slog.Logger
	http *net.TCPListener
	tls  *tls.Config   // nil: plain HTTP
	acme *certs.Keeper // nil: a certificate was given, or none
	port *fan.Port

	cluster *cluster.Cluster
	archive *archive.Archive
	fan     *fan.Fan
	gate    *rtc.Gate
	house   *House
	server  *http.Server

	operatorKey string
	newKey      bool // made by this start
	leaving     atomic.Bool
}

// New validates, opens and listens. When it returns, connections are accepted by the kernel and served once Run runs.
func New(ctx context.Context, cfg Config) (_ *App, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Public == "" && len(cfg.Domains) > 0 {
		cfg.Public = "https://" + cfg.Domains[0]
	}
	a := &App{cfg: cfg, log: cfg.Log}
	defer func() {
		if err != nil {
			a.close(context.WithoutCancel(ctx))
		}
	}()

	// The ports first: whoever starts a second node by mistake is told so before a store is touched.
	if a.tls, err = secure(cfg); err != nil {
		return nil, err
	}
	roots, err := authorityRoots(cfg)
	if err != nil {
		return nil, err
	}
	if a.http, err = sweep.ListenTCP(ctx, cfg.Listen); err != nil {
		return nil, listenError("--listen", cfg.Listen, err)
	}
	if a.port, err = fan.Listen(cfg.UDP, a.log); err != nil {
		return nil, listenError("--udp", cfg.UDP, err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if a.cluster, err = cluster.Open(ctx, cluster.Config{
		Dir: cfg.Data, Version: cfg.Version, Log: a.log, Join: cfg.join(a.address()), Registerer: reg,
	}); err != nil {
		return nil, err
	}
	if err := a.keepCertificates(roots, reg); err != nil { // in the folder that is ours since the store is open
		return nil, err
	}
	if a.operatorKey, a.newKey, err = a.findOperatorKey(ctx); err != nil {
		return nil, err
	}
	if cfg.is(RoleStage) {
		if a.archive, err = archive.Open(ctx, cfg.Data, a.log, reg); err != nil {
			return nil, err
		}
	}
	if a.fan, err = fan.New(fan.Config{Port: a.port, Advertise: cfg.Advertise, FFmpeg: cfg.FFmpeg, Log: a.log, Registerer: reg}); err != nil {
		return nil, err
	}
	if a.gate, err = rtc.New(rtc.Config{
		UDPMux: a.port.UDPMux(), TCPMux: a.port.TCPMux(), Advertise: cfg.Advertise, Log: a.log, Registerer: reg,
	}); err != nil {
		return nil, err
	}
	a.house = newHouse(a.cluster, a.archive, a.log)
	a.house.stages, a.house.edges = cfg.is(RoleStage), a.cluster.Joined() && cfg.is(RoleEdge)
	reg.MustRegister(&houseCollector{house: a.house})

	// Tokens for crowds are signed with a key that follows from the operator's: every node has it, and replacing the one ends the other.
	crowdKey := hmac.New(sha256.New, []byte(a.operatorKey))
	crowdKey.Write([]byte("earshot crowd tokens"))
	handler, err := web.New(web.Config{
		Store:           a.cluster,
		House:           a.house,
		Voices:          a.gate,
		Listeners:       listeners{a.fan},
		Replays:         a.replays(),
		Pacer:           pacer{a.fan},
		Radio:           radios{a.fan},
		UI:              ui.FS(),
		OperatorKeyHash: web.HashSecret(a.operatorKey),
		BaseURL:         cfg.Public,
		TrustedProxies:  cfg.TrustedProxies,
		CrowdKey:        crowdKey.Sum(nil),
		Backup:          a.backup,
		Metrics:         promhttp.HandlerFor(reg, promhttp.HandlerOpts{}),
		Registerer:      reg,
		Ready:           a.ready,
		Notes:           a.notes,
		Log:             a.log,
		Now:             time.Now,
		Version:         cfg.Version,
	})
	if err != nil {
		return nil, err
	}
	a.server = web.NewServer(handler)
	a.server.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
	if err := a.house.Start(ctx); err != nil {
		return nil, err
	}
	if cfg.Demo {
		if err := a.house.openDemo(ctx); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Run serves until ctx ends, then takes the node down in order: no newcomers, the stages' last segments closed and stored,
// listeners told to come back and when, connections ended, the store closed. It returns nil after an orderly end.
func (a *App) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	a.server.TLSConfig = a.tls // so that it speaks HTTP/2
	go func() { failed <- a.server.Serve(a.fan.Sweep().Listen(a.http, a.tls)) }()
	thrifty, enough := context.WithCancel(ctx)
	var housekeeping sync.WaitGroup
	housekeeping.Go(func() { a.giveMemoryBack(thrifty) })
	if a.acme != nil {
		housekeeping.Go(func() { a.acme.Run(thrifty) })
	}
	defer housekeeping.Wait()
	defer enough()
	a.log.Info("serving", "http", a.http.Addr().String(), "udp", a.port.Addr().String())

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("serve HTTP: %w", err)
	}
	a.log.Info("leaving", "back_in", backIn)
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	a.close(bounded)
	if err == nil {
		<-failed // Shutdown or Close has ended it
	}
	a.log.Info("left")
	return err
}

// close undoes New in reverse. Every part may be missing.
func (a *App) close(ctx context.Context) {
	a.leaving.Store(true)
	warn := func(part string, err error) {
		if err != nil && !errors.Is(err, net.ErrClosed) {
			a.log.Warn("close", "part", part, "err", err)
		}
	}
	if a.house != nil {
		warn("house", a.house.Close(ctx, backIn))
	}
	if a.fan != nil {
		warn("fan", a.fan.Shutdown(ctx, backIn))
	}
	if a.gate != nil {
		warn("rtc", a.gate.Close(ctx))
	}
	if a.server != nil {
		if err := a.server.Shutdown(ctx); err != nil {
			warn("http", a.server.Close())
		}
	}
	if a.acme != nil {
		a.acme.Close()
	}
	if a.http != nil {
		warn("listener", a.http.Close())
	}
	if a.port != nil {
		warn("port", a.port.Close())
	}
	if a.archive != nil {
		warn("archive", a.archive.Close())
	}
	if a.cluster != nil {
		warn("store", a.cluster.Close(ctx))
	}
}

// listenError turns the system's word into what an operator can act on.
func listenError(flag, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s %s: another process listens there; stop it or name another port: %w", flag, address, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s %s: this user may not take that port; name one above 1023: %w", flag, address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s %s: this machine does not have that address: %w", flag, address, err)
	}
	return fmt.Errorf("%s %s: %w", flag, address, err)
}
