package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

// The pauses between runs: the first, the longest, and how long a run must have lasted
// for the next pause to be the first again.
const (
	firstPause   = time.Second
	longestPause = time.Minute
	healthyTime  = time.Minute
)

var errEnded = errors.New("the run ended without being asked to")

// supervisor starts one part again and again until it ends for good.
type supervisor struct {
	name    string                          // for the log, as "capture shop"
	run     func(ctx context.Context) error // one run; nil only after ctx has ended
	running func() bool                     // whether the present run has got past its start
	told    func(httpapi.State)             // told of each state that the supervisor decides; may be nil
	standby time.Duration                   // pause after being fenced; 0: end for good
	hint    func(error) string              // what to do about an error; nil: what it says itself
	rest    func(ctx context.Context) bool  // waits after an error that is final; true: start again; nil: end for good
	log     *slog.Logger

	mu       sync.Mutex
	state    httpapi.State
	since    time.Time
	restarts int
	retryAt  time.Time
	err      error // of the last run
}

// Run runs the part until ctx ends (nil) or the part fails for good (its error).
func (s *supervisor) Run(ctx context.Context) error {
	pause := firstPause
	s.set(httpapi.Starting, nil, 0)
	for {
		begun := time.Now()
		err := s.advised(s.run(ctx))
		if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
			s.set(httpapi.Stopped, nil, 0)
			return nil
		}
		if err == nil {
			err = errEnded
		}
		aside := s.standby > 0 && fenced(err)
		if Final(err) && !aside || ctx.Err() != nil {
			s.set(httpapi.Stopped, err, 0)
			s.log.Error(s.name+" stopped", "error", err, "hint", Hint(err))
			if ctx.Err() != nil || s.rest == nil || !s.rest(ctx) {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.log.Info(s.name + " is started again")
			pause = firstPause
			s.again()
			continue
		}
		if time.Since(begun) >= healthyTime {
			pause = firstPause
		}
		wait := jitter(pause)
		if aside {
			wait = s.standby + jitter(s.standby)
		}
		s.set(httpapi.Waiting, err, wait)
		s.log.Warn(s.name+" failed, will start again", "error", err, "hint", Hint(err), "in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			s.set(httpapi.Stopped, err, 0)
			return nil
		case <-time.After(wait):
		}
		pause = min(2*pause, longestPause)
		s.again()
	}
}

// advised adds to an error what to do about it.
func (s *supervisor) advised(err error) error {
	if err == nil || s.hint == nil {
		return err
	}
	if hint := s.hint(err); hint != "" && hint != Hint(err) {
		return &advisedError{err, hint}
	}
	return err
}

// advisedError is an error with a better hint than its own.
type advisedError struct {
	error
	hint string
}

// Unwrap gives the cause.
func (e *advisedError) Unwrap() error { return e.error }

// Hint says what to do.
func (e *advisedError) Hint() string { return e.hint }

// jitter spreads a pause over its upper half, so that many parts do not return at once.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}

// set notes a new state.
func (s *supervisor) set(state httpapi.State, err error, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.since, s.err, s.retryAt = state, time.Now(), err, time.Time{}
	if wait > 0 {
		s.retryAt = time.Now().Add(wait)
	}
	s.tell(state)
}

// tell passes a state on.
func (s *supervisor) tell(state httpapi.State) {
	if s.told != nil {
		s.told(state)
	}
}

// again notes that another run begins. The last error stays visible: until the run says
// that it is healthy, it is the best cause there is.
func (s *supervisor) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.since, s.retryAt = httpapi.Starting, time.Now(), time.Time{}
	s.restarts++
	s.tell(httpapi.Starting)
}

// snapshot is what a supervisor knows of its part.
type snapshot struct {
	state    httpapi.State
	since    time.Time
	restarts int
	retryAt  *time.Time
	err      error
}

// snapshot returns the present state.
func (s *supervisor) snapshot() snapshot {
	running := s.running()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := snapshot{state: s.state, since: s.since, restarts: s.restarts, err: s.err}
	if out.state == "" {
		out.state = httpapi.Starting
	}
	if out.state == httpapi.Starting && running {
		out.state, out.err = httpapi.Running, nil
	}
	if !s.retryAt.IsZero() {
		at := s.retryAt
		out.retryAt = &at
	}
	return out
}
