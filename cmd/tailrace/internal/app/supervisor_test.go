package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// fatal is an error that must not be tried again.
type fatal struct{}

func (fatal) Error() string { return "broken for good" }
func (fatal) Fatal() bool   { return true }
func (fatal) Hint() string  { return "look" }
func (fatal) Code() int     { return ExitEnvironment }

// supervise returns a supervisor of run.
func supervise(run func(context.Context) error) *supervisor {
	return &supervisor{name: "part", log: quiet, run: run, running: func() bool { return false }}
}

// A part that fails at once is started again after pauses that double up to the longest,
// each within its upper half.
func TestBackoffGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var began []time.Time
		s := supervise(func(context.Context) error {
			began = append(began, time.Now())
			if len(began) == 10 {
				cancel()
			}
			return errors.New("no route")
		})
		if err := s.Run(ctx); err == nil {
			t.Error("an error of the last run was lost")
		}
		want := firstPause
		for i := 1; i < len(began); i++ {
			if got := began[i].Sub(began[i-1]); got < want/2 || got > want {
				t.Errorf("pause %d was %v, want %v to %v", i, got, want/2, want)
			}
			want = min(2*want, longestPause)
		}
		if want != longestPause {
			t.Error("the longest pause was not reached")
		}
	})
}

// A run that has lasted makes the next pause short again.
func TestBackoffStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var ended, began time.Time
		runs := 0
		s := supervise(func(context.Context) error {
			runs++
			switch runs {
			case 6:
				time.Sleep(healthyTime)
				ended = time.Now()
			case 7:
				began = time.Now()
				cancel()
			}
			return errors.New("no route")
		})
		_ = s.Run(ctx)
		if got := began.Sub(ended); got > firstPause || got < firstPause/2 {
			t.Errorf("pause after a healthy run was %v", got)
		}
	})
}

func TestEndsForGood(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
	}{
		{"fatal", fmt.Errorf("run: %w", fatal{}), ExitEnvironment},
		{"fenced", fmt.Errorf("run: %w", stream.ErrFenced), ExitRuntime},
		{"registry fenced", fmt.Errorf("run: %w", registry.ErrFenced), ExitRuntime},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				runs, begun := 0, time.Now()
				s := supervise(func(context.Context) error { runs++; return c.err })
				err := s.Run(t.Context())
				if !errors.Is(err, c.err) || runs != 1 || time.Since(begun) != 0 || ExitCode(err) != c.code {
					t.Errorf("got %v after %d runs and %v, code %d", err, runs, time.Since(begun), ExitCode(err))
				}
				if snap := s.snapshot(); snap.state != httpapi.Stopped || snap.err == nil || !snap.problem().Fatal {
					t.Errorf("got %+v", snap)
				}
			})
		})
	}
}

// A part that may take its work back later stands by after being fenced.
func TestStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var began []time.Time
		s := supervise(func(context.Context) error {
			if began = append(began, time.Now()); len(began) == 3 {
				cancel()
			}
			return registry.ErrFenced
		})
		s.standby = time.Minute
		_ = s.Run(ctx)
		for i := 1; i < len(began); i++ {
			if got := began[i].Sub(began[i-1]); got < time.Minute || got > 2*time.Minute {
				t.Errorf("stood by for %v", got)
			}
		}
	})
}

// The states that a part goes through, as /status shows them.
func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		fail := make(chan error)
		var works atomic.Bool
		s := supervise(func(ctx context.Context) error {
			works.Store(true)
			defer works.Store(false)
			select {
			case err := <-fail:
				return err
			case <-ctx.Done():
				return nil
			}
		})
		s.running = works.Load
		var told []httpapi.State
		s.told = func(state httpapi.State) { told = append(told, state) }
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		expect := func(state httpapi.State, restarts int, failed, retry bool) {
			t.Helper()
			synctest.Wait()
			if got := s.snapshot(); got.state != state || got.restarts != restarts || (got.err != nil) != failed || (got.retryAt != nil) != retry {
				t.Errorf("got %+v, want %s", got, state)
			}
		}
		expect(httpapi.Running, 0, false, false)
		fail <- errors.New("no route")
		expect(httpapi.Waiting, 0, true, true)
		time.Sleep(firstPause)
		expect(httpapi.Running, 1, false, false)
		fail <- nil // ends by itself: an error too
		expect(httpapi.Waiting, 1, true, true)
		cancel()
		expect(httpapi.Stopped, 1, true, false)
		if err := <-ended; err != nil {
			t.Errorf("got %v", err)
		}
		if got, want := fmt.Sprint(told), "[starting waiting starting waiting stopped]"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}

// A stop while the part runs is no failure, whatever the part makes of its context.
func TestStop(t *testing.T) {
	for _, result := range []error{nil, context.Canceled, fmt.Errorf("read: %w", context.Canceled)} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			s := supervise(func(ctx context.Context) error { <-ctx.Done(); return result })
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			synctest.Wait()
			cancel()
			if err := <-ended; err != nil || s.snapshot().state != httpapi.Stopped {
				t.Errorf("got %v, %+v", err, s.snapshot())
			}
		})
	}
}

func TestExitCode(t *testing.T) {
	for want, err := range map[int]error{
		ExitOK:          nil,
		ExitRuntime:     errors.New("x"),
		ExitEnvironment: fmt.Errorf("x: %w", fatal{}),
		ExitUsage:       fmt.Errorf("x: %w", usage{}),
	} {
		if got := ExitCode(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
	for want, err := range map[string]error{
		"":     errors.New("x"),
		"look": errors.Join(errors.New("x"), fmt.Errorf("y: %w", &settingError{"z", "", fatal{}})),
		"another process runs this capture: stop one of the two": fmt.Errorf("x: %w", stream.ErrFenced),
	} {
		if got := Hint(err); got != want {
			t.Errorf("%v: got hint %q, want %q", err, got, want)
		}
	}
}

type usage struct{}

func (usage) Error() string { return "wrong flag" }
func (usage) Usage() bool   { return true }
