// Package stage is the live part of an event: who is on stage, who is heard, and the one goroutine that turns their voices
// into the programme.
//
// A Stage is owned by the goroutine that calls Run. Everything that happens to it is a message to that goroutine through one
// select: a command (join, mute, go live, end), a departure that a connection flagged, or the clock. Every 20 ms the clock asks
// for one frame, also of silence: the packets that arrived are handed to the desk, the desk mixes, the frame and its cues are
// appended to the timeline, and each speaker is handed the mix without themself. Nothing that a speaker or a listener does can
// hold this up: voices come in through bounded queues that drop the oldest (Seat.Push), the mix goes out through a queue and a
// goroutine per outlet (ear), and what outsiders read (State, Levels, Stats) is a copy kept under a lock that is never held
// for more than a copy.
//
// # The clock
//
// Frame n belongs to the instant Origin + n × 20 ms, and is made then. A late tick makes the missed frames one by one, each of
// the packets that were there when it was due, with commands served in between: a stall of a second delays the programme and
// loses nothing of it. When it is later than maxLate (the machine slept, or was starved) the stage jumps to the next segment
// boundary and leaves a gap in the timeline, rather than mix minutes of silence in a burst.
//
// # Words
//
// A member is a person with a place on stage, kept for Grace after their connection is lost. A Seat is one connection of a
// member: the newer seat displaces the older one. A hand is a listener's wish to become a member.
package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/event"
	"earshot/internal/mix"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

// Limits of one stage.
const (
	MaxVoices   = 50               // members at a time; more are answered event.Busy
	HostVoices  = 2                // further ones for those who run the event, so that no crowd of speakers keeps the host out
	MaxHands    = 200              // hands up at a time: each is part of every State that is sent
	MaxMonitors = 4                // monitors of one member at a time
	Grace       = 30 * time.Second // a lost connection keeps its place this long

	maxLate     = uint64(timeline.FramesPerSegment) // frames; later than this leaves a gap, see the package's doc
	maxCommands = 64                                // capacity of the command queue; senders wait, until their context ends
	maxNotices  = 8                                 // notices waiting for the next frame; more are answered event.Busy

	maxNoticeText = 500 // characters
	maxID         = 128 // bytes of a person's
)

// Config is what a stage is made from.
type Config struct {
	Event    event.Event           // in an open phase, with its Origin; ID and slug are not looked at
	Epoch    uint64                // of the lease under which frames are made
	First    uint64                // number of the first frame, a multiple of 100; it may lie in the future
	Banned   []event.Banned        // who may not come; Stage.Ban adds to them
	Timeline *timeline.Timeline    // the stage is its only writer, and closes it when the event ends
	Audience *observatory.Audience // swept every 2 s for the count cue; nil: nobody counts
	Mix      mix.Config

	// Relay is told each frame and its cues once the timeline has them, so that other nodes get them, too. It must not block, and
	// must copy what it keeps. It may be nil.
	Relay func(timeline.Frame, []timeline.Cue)

	// IdleEnd is how long nobody may be connected before OnIdle is called; 0 takes the event's. In the phase doors, the time
	// before the announced start does not count: nobody has to be early.
	IdleEnd time.Duration
	// OnIdle is called once each time the stage has been empty for so long, on a goroutine of its own that Run does not wait for, so
	// that it may end the event and wait for Run. It should only start what it wants done. Somebody may have come meanwhile: State says.
	OnIdle func()

	// OnHostLost is asked to have a co-host follow a host who was lost for HostGrace, in a live event: to store it, and to call HandOver
	// with what it was given. It is called by the stage itself, so it must not block, and again while nothing came of it. It may be nil.
	OnHostLost func(Handover)

	// Wall reads the clock that people see; nil is time.Now. It is asked once a segment, to notice that the machine slept
	// (the monotonic clock, which paces the frames, stands still in sleep).
	Wall func() time.Time
}

// Stage is one live event. All methods are safe from any goroutine.
type Stage struct {
	// fixed
	cfg      Config
	commands chan *command
	nudge    chan struct{} // capacity 1: some seat or ear was flagged; look at all
	done     chan struct{} // closed when Run has returned; then refusal is set
	ran      atomic.Bool

	board board // what outsiders see

	ears sync.WaitGroup // every goroutine that serves an outlet

	// owned by the goroutine in Run
	clock     clock
	desk      *mix.Desk
	next      uint64 // number of the next frame
	phase     event.Phase
	liveAt    time.Time
	liveFrame uint64
	start     time.Time // announced
	idleEnd   time.Duration
	members   []*member // in the order in which they came
	hands     []hand
	roll      event.Roll // its bans
	missing   missing
	silenced  map[string]struct{} // person IDs that a host muted; outlives their leaving, or leaving would unmute
	idleSince time.Time           // zero while somebody is connected
	idleTold  bool
	dirty     bool   // State must be published
	over      bool   // Run is to return
	ending    Reason // what outlets are told then
	listening int    // at the last sweep
	cues      cues
	totals    Stats       // the counters in it; see figures
	gone      VoiceTotals // of voices that left
	refusal   error       // for commands that come too late; written before done is closed
}

// New makes a stage that stands still until Run.
func New(cfg Config) (*Stage, error) {
	switch {
	case !cfg.Event.Phase.Open():
		return nil, event.Conflict("An event that is " + string(cfg.Event.Phase) + " has no stage.")
	case cfg.Event.Origin.IsZero():
		return nil, errors.New("new stage: the event has no origin")
	case cfg.Timeline == nil:
		return nil, errors.New("new stage: no timeline")
	case cfg.First%timeline.FramesPerSegment != 0:
		return nil, fmt.Errorf("new stage: first frame %d does not begin a segment", cfg.First)
	}
	if cfg.Audience == nil {
		cfg.Audience = observatory.NewAudience(event.Count{})
	}
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	desk, err := mix.NewDesk(cfg.Mix)
	if err != nil {
		return nil, fmt.Errorf("new stage: %w", err)
	}
	s := &Stage{
		cfg:      cfg,
		commands: make(chan *command, maxCommands),
		nudge:    make(chan struct{}, 1),
		done:     make(chan struct{}),
		clock:    newClock(cfg.Event.Origin, cfg.Wall),
		desk:     desk,
		next:     cfg.First,
		phase:    cfg.Event.Phase,
		start:    cfg.Event.Start,
		roll:     event.Roll{Banned: slices.Clone(cfg.Banned)},
		silenced: make(map[string]struct{}),
		ending:   Restart,
		dirty:    true,
	}
	s.setIdleEnd(cfg.IdleEnd, cfg.Event.IdleEnd)
	if s.phase == event.Live {
		s.liveAt = cfg.Event.LiveAt
		s.liveFrame = cfg.Event.FrameAt(s.liveAt)
	}
	s.publish()
	return s, nil
}

func (s *Stage) setIdleEnd(wishes ...time.Duration) {
	for _, d := range append(wishes, event.DefaultIdleEnd) {
		if d > 0 {
			s.idleEnd = d
			return
		}
	}
}

// Run makes frames until the event ends (Turn), the process stops (Finish), or ctx ends. It may be called once.
//
// It answers nil after Turn and Finish, which close the timeline; ctx.Err() if ctx ended, and otherwise what kept it from
// making frames, such as timeline.ErrStale when a newer epoch writes. Then the timeline is left as it is, for whoever goes on
// with it or closes it. In each case all outlets were closed, and their goroutines have ended, when it returns.
func (s *Stage) Run(ctx context.Context) error {
	if !s.ran.CompareAndSwap(false, true) {
		return errors.New("run stage: it ran before")
	}
	defer s.close()
	s.idleSince = time.Now()
	timer := time.NewTimer(s.clock.until(s.next))
	defer timer.Stop()
	for !s.over {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-s.commands:
			s.settle(time.Now())
			c.run(s)
		case <-s.nudge:
			s.settle(time.Now())
		case <-timer.C:
			if err := s.tick(); err != nil {
				return fmt.Errorf("make frame %d: %w", s.next, err)
			}
			timer.Reset(s.clock.until(s.next))
		}
		s.publish()
	}
	return nil
}

// tick makes the next frame, or jumps over those that are too late to be made.
func (s *Stage) tick() error {
	if s.next%timeline.FramesPerSegment == 0 {
		s.clock.resync()
	}
	now := time.Now()
	current := s.clock.frame(now)
	if current > s.next {
		s.totals.LateTicks++
	}
	if current > s.next+maxLate {
		boundary := (current/timeline.FramesPerSegment + 1) * timeline.FramesPerSegment
		s.totals.Gaps++
		s.totals.Skipped += boundary - s.next
		s.next = boundary
		return nil
	}
	s.settle(now)
	return s.frame(now)
}

// frame is the way of the audio: 20 ms in, 20 ms out. It allocates nothing unless a cue changed or a part closes.
func (s *Stage) frame(now time.Time) error {
	s.publish() // what changed goes into this frame's cues
	n := s.next
	due := s.clock.due(n)
	for _, m := range s.members {
		if m.seat != nil {
			m.seat.drain(m.voice, due)
		}
	}
	began := time.Now()
	packet, err := s.desk.Mix(due, s.phase == event.Live)
	s.totals.Mixing += time.Since(began)
	if err != nil {
		if len(packet) == 0 {
			return err
		}
		s.totals.Failed++ // some speaker's mix, not the programme
	}
	for _, m := range s.members {
		m.hear(n)
	}
	s.measure(n)
	f, cues := timeline.Frame{Number: n, Epoch: s.cfg.Epoch, Packet: packet}, s.place(n, now)
	if err := s.cfg.Timeline.Append(f, cues...); err != nil {
		return err
	}
	if s.cfg.Relay != nil {
		s.cfg.Relay(f, cues)
	}
	s.cues.taken()
	s.totals.Frames++
	s.next++
	return nil
}

// end makes the last frame, with what the cues still have to say, and closes the timeline. It is made even when it is not yet
// due: at most 20 ms early, or, when the stage waits for its first segment to begin, as that segment's only frame.
func (s *Stage) end(now time.Time, r Reason) {
	s.over, s.ending = true, r
	// An error means that another epoch has the timeline, or that it is closed: there is nobody left to tell.
	_ = s.frame(now)
	if s.phase.Over() {
		s.cfg.Timeline.End()
	} else {
		s.cfg.Timeline.Close() // players keep asking: another process goes on
	}
}

// close empties the stage, refuses whoever still waits, and waits for the outlets' goroutines.
func (s *Stage) close() {
	for len(s.members) > 0 {
		s.drop(s.members[len(s.members)-1], s.ending)
	}
	s.hands = nil
	s.dirty = true
	s.publish()
	s.refusal = event.Conflict("The event has ended.")
	if !s.phase.Over() {
		s.refusal = event.Unavailable("The stage restarts. Come back in a few seconds.", nil)
	}
	close(s.done)
	s.ears.Wait()
	s.desk.Close()
}
