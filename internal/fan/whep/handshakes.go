package whep

import (
	"context"
	"errors"
	"time"
)

const (
	// handshake is how long a WebRTC listener may take from the answer to DTLS being done.
	handshake = 15 * time.Second

	// hurryAfter is how long a handshake may take while others wait for theirs.
	hurryAfter = 2 * time.Second
)

// shaker is a goroutine that does handshakes, one after the other.
type shaker struct {
	since  int64 // of the one that it does now
	cancel context.CancelFunc
}

// lineMost bounds those who wait for their handshake.
func (e *Engine) lineMost() int { return 2 * e.cfg.MaxPending }

// queue lets a session shake hands, at once or when others are done.
func (e *Engine) queue(s *session) {
	e.mu.Lock()
	e.pending.shakes(s, e.now())
	e.mu.Unlock()
	s.mu.Lock()
	if s.life != inLine {
		s.mu.Unlock()
		return
	}
	// The goroutine's own, for as long as it runs. It is counted while the session's count must be there: Close may wait already.
	e.alive.Add(1)
	s.mu.Unlock()
	e.shakeMu.Lock()
	if len(e.shaking) < e.cfg.MaxHandshakes {
		k := &shaker{}
		e.shaking[k] = struct{}{}
		e.shakeMu.Unlock()
		go e.shake(k, s)
		return
	}
	defer e.alive.Done()
	full := len(e.line) >= e.lineMost()
	if !full {
		e.line = append(e.line, s)
	}
	e.shakeMu.Unlock()
	if full {
		e.stats.inbound[inboundLine].Add(1)
		s.mu.Lock()
		if s.life == inLine {
			s.life, s.shaking = waiting, nil // the client says hello again
		}
		s.mu.Unlock()
	}
}

// shake does the given session's handshake, then those that wait in line.
func (e *Engine) shake(k *shaker, s *session) {
	defer e.alive.Done()
	for s != nil {
		left := handshake - time.Duration(e.now()-s.since)
		ctx, cancel := context.WithTimeout(e.ctx, left)
		e.shakeMu.Lock()
		k.since, k.cancel = e.now(), cancel
		e.shakeMu.Unlock()
		e.shakeOne(ctx, cancel, s)
		cancel()
		e.shakeMu.Lock()
		s, k.cancel = nil, nil
		if len(e.line) > 0 {
			s = e.line[0]
			e.line[0] = nil
			if e.line = e.line[1:]; len(e.line) == 0 {
				e.line = nil
			}
		} else {
			delete(e.shaking, k)
		}
		e.shakeMu.Unlock()
	}
}

func (e *Engine) shakeOne(ctx context.Context, cancel context.CancelFunc, s *session) {
	s.mu.Lock()
	if s.life != inLine {
		s.mu.Unlock()
		return
	}
	s.life, s.cancel = shakes, cancel
	k := s.shaking
	s.mu.Unlock()

	got, err := k.shake(ctx, e.id, s.hash, s.print)

	s.mu.Lock()
	s.shaking, s.cancel, s.print = nil, nil, nil
	if s.life == over {
		to := s.to
		s.mu.Unlock()
		if err == nil { // the client may think that it is connected
			if b, err := got.dtls.goodbye(); err == nil {
				e.sendTo(to, b)
			}
		}
		s.hangUp()
		e.alive.Done()
		return
	}
	if err != nil {
		s.life = waiting // so that drop counts it out
		s.mu.Unlock()
		e.cfg.Log.Debug("a listener's handshake failed", "err", err)
		why := droppedHandshake
		if errors.Is(err, errPrint) {
			why = droppedCertificate
		}
		e.drop(s, why)
		return
	}
	s.life, s.via = playing, e.emptiest()
	s.keys, s.records, s.flight = got.keys, got.dtls, got.last
	e.stats.listeners.Add(1)
	e.stats.joined.Add(1)
	s.via.post(order{what: orderJoin, s: s, to: s.to})
	s.mu.Unlock()
	e.mu.Lock()
	e.pending.remove(s)
	e.mu.Unlock()
}

// emptiest is the shard with the fewest sessions.
func (e *Engine) emptiest() *shard {
	var best *shard
	least := 0
	for _, sh := range e.shards {
		sh.mu.Lock()
		n := sh.size
		sh.mu.Unlock()
		if best == nil || n < least {
			best, least = sh, n
		}
	}
	return best
}

// hurry ends the handshakes that take long while others wait in line: half-open ones must keep nobody out.
func (e *Engine) hurry(now int64) {
	e.shakeMu.Lock()
	defer e.shakeMu.Unlock()
	if len(e.line) == 0 {
		return
	}
	for k := range e.shaking {
		if k.cancel != nil && now-k.since > int64(hurryAfter) {
			k.cancel()
			k.cancel = nil
		}
	}
}
