package app

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"earshot/internal/demo"
	"earshot/internal/event"
	"earshot/internal/mix"
	"earshot/internal/stage"
	"earshot/internal/web"
)

const (
	demoSlug    = "demo"
	demoBitrate = 32000 // bit/s of a synthetic voice on its way to the stage
)

// demoEvent is the event that --demo opens: live at once, not recorded (it may run for weeks), with two synthetic voices.
type demoEvent struct {
	slug       string
	hostSecret string
}

// openDemo finds the demo of the last start, or makes one; the next name is taken when somebody ended the last.
func (h *House) openDemo(ctx context.Context) error {
	ev, err := h.findDemo(ctx)
	if err != nil {
		return fmt.Errorf("open the demo: %w", err)
	}
	secret, err := h.store.Secret(ctx, "demo-host-"+ev.Slug, func() ([]byte, error) {
		return []byte(web.NewSecret(web.InviteSecret)), nil
	})
	if err != nil {
		return fmt.Errorf("open the demo: %w", err)
	}
	hash := web.HashSecret(string(secret))
	if _, err := h.store.InviteByHash(ctx, hash); event.CodeOf(err) == event.CodeNotFound {
		err = h.store.CreateInvite(ctx, event.Invite{
			ID: "in_demo", Event: ev.ID, Role: event.Host, Label: "demo", Hash: hash, Created: h.now().UTC(),
		})
		if err != nil {
			return fmt.Errorf("open the demo: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("open the demo: %w", err)
	}
	if ev.Phase != event.Live {
		if _, err := h.Turn(ctx, ev.Slug, event.Live); err != nil {
			return fmt.Errorf("open the demo: %w", err)
		}
	}
	h.demo = &demoEvent{slug: ev.Slug, hostSecret: string(secret)}
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails (crypto/rand)
	a, b := demo.Pair(binary.LittleEndian.Uint64(seed[:]))
	h.goUntilStop(func(ctx context.Context) {
		h.speak(ctx, ev.Slug, event.Person{ID: "p_demo1", Name: "Synthetic voice 1", Role: event.Speaker}, a)
	})
	h.goUntilStop(func(ctx context.Context) {
		h.speak(ctx, ev.Slug, event.Person{ID: "p_demo2", Name: "Synthetic voice 2", Role: event.Speaker}, b)
	})
	return nil
}

func (h *House) findDemo(ctx context.Context) (event.Event, error) {
	for n := 1; ; n++ {
		slug := demoSlug
		if n > 1 {
			slug = fmt.Sprintf("%s-%d", demoSlug, n)
		}
		ev, err := h.store.Event(ctx, slug)
		if err == nil && !ev.Phase.Over() {
			return ev, nil
		}
		if err == nil {
			continue
		}
		if event.CodeOf(err) != event.CodeNotFound {
			return event.Event{}, err
		}
		now := h.now().UTC().Truncate(time.Second)
		return h.store.CreateEvent(ctx, event.Event{
			ID: "ev_" + strings.ToLower(rand.Text())[:18], Slug: slug, Title: "Two voices, taking turns",
			Description: "A demonstration: two synthetic voices, made on this machine, take turns. It is not recorded. " +
				"Open the host's link to join them with your own.",
			Start: now, Zone: "UTC", Listed: true, IdleEnd: event.MaxIdleEnd, Phase: event.Scheduled, Created: now,
		})
	}
}

// speak keeps one synthetic voice on the demo's stage for as long as there is one.
func (h *House) speak(ctx context.Context, slug string, p event.Person, voice *demo.Voice) {
	enc, err := mix.NewEncoder(demoBitrate)
	if err != nil {
		h.log.Error("demo voice", "err", err)
		return
	}
	for ctx.Err() == nil {
		if room, ok := h.Room(slug); ok && room.Stage != nil {
			out := &silentOutlet{closed: make(chan struct{})}
			if seat, err := room.Stage.Join(ctx, p, out, false); err == nil {
				h.utter(ctx, seat, out, enc, voice)
				seat.Leave(stage.Left)
			}
		}
		select { // between two rooms, or removed by somebody: come back, quietly
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
}

// utter sends one packet every 20 ms by the wall clock until the seat is closed.
func (h *House) utter(ctx context.Context, seat *stage.Seat, out *silentOutlet, enc *mix.Encoder, voice *demo.Voice) {
	pcm := make([]float32, event.FrameSamples)
	buf := make([]byte, 1500)
	tick := time.NewTicker(event.FrameDuration)
	defer tick.Stop()
	start := time.Now()
	for n := uint64(0); ; {
		for due := uint64(time.Since(start) / event.FrameDuration); n < due; n++ {
			voice.Frame(n, pcm)
			size, err := enc.Encode(pcm, buf)
			if err != nil {
				h.log.Error("demo voice", "err", err)
				return
			}
			seat.Push(mix.Packet{Seq: uint16(n), TS: uint32(n * event.FrameSamples), Payload: buf[:size], Arrived: time.Since(start)})
		}
		select {
		case <-tick.C:
		case <-out.closed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// silentOutlet is the way back to somebody who does not listen.
type silentOutlet struct{ closed chan struct{} }

func (o *silentOutlet) Hear(uint64, []byte) {}

func (o *silentOutlet) Close(stage.Reason) { close(o.closed) }
