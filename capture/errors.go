package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// Exit codes that an error may ask for by a method Code() int.
const (
	CodeRuntime     = 1
	CodeConfig      = 2
	CodeEnvironment = 3
)

// IsFatal says whether an error ends the capture for good: starting again would meet it
// again, and a person has to decide.
func IsFatal(err error) bool {
	var f interface{ Fatal() bool }
	return errors.As(err, &f) && f.Fatal()
}

// HintOf returns what the operator should do about err; "" if nobody knows.
func HintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// CodeOf returns the exit code that err asks for by Code() int or Environment() bool,
// CodeRuntime if it asks for none.
func CodeOf(err error) int {
	var c interface{ Code() int }
	if errors.As(err, &c) {
		return c.Code()
	}
	var e interface{ Environment() bool }
	if errors.As(err, &e) && e.Environment() {
		return CodeEnvironment
	}
	return CodeRuntime
}

// stop is an error after which the capture must not go on by itself.
type stop struct {
	err  error
	hint string
	ways []Way // that lead on; none: what the hint says
}

func (e *stop) Error() string { return e.err.Error() }
func (e *stop) Unwrap() error { return e.err }
func (e *stop) Fatal() bool   { return true }
func (e *stop) Hint() string  { return e.hint }
func (e *stop) Ways() []Way   { return e.ways }

func stopf(hint, format string, args ...any) error {
	return &stop{err: fmt.Errorf(format, args...), hint: hint}
}

// logLost says that the database no longer has what follows the capture's position. Changes
// are gone; the tables can be read anew.
type logLost struct{ stop }

func lostLog(format string, args ...any) error {
	return newLogLost(fmt.Errorf(format, args...), "changes since then are not in the topics")
}

func newLogLost(err error, hint string) error {
	return &logLost{stop{err: err, ways: []Way{{Flag: WayEpoch}},
		hint: hint + "; with snapshot: when_needed the tables would be read anew without asking"}}
}

const nothingSince = "nothing was written since"

// contradiction says that the end of a partition cannot come from the log that is read.
func contradiction(part *partition, why string) error {
	return epochf("the topic was written from another log, or by somebody else; "+nothingSince,
		"partition %s does not come from this log: its last record is %s, n = %d, but %s",
		part.id, placeText(part.tail.place), part.tail.n, why)
}

// lostErr says that no position is borne out by what the partitions hold.
func lostErr(why error) error {
	return epochf("the broker has lost records that it had acknowledged; "+nothingSince,
		"no position of the state is borne out by the topics: %w", why)
}

func placeText(p stream.Place) string {
	return fmt.Sprintf("(epoch %d, %s, row %d)", p.Epoch, placePosition(p), p.Row)
}

// retry calls fn until it succeeds, fails for good, or ctx ends, with growing pauses from
// 100 ms to 5 s. told is called after the first failure and then at most once a minute.
func retry(ctx context.Context, told func(error), fn func() error) error {
	pause, last := 100*time.Millisecond, time.Time{}
	for {
		err := fn()
		if err == nil || IsFatal(err) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if time.Since(last) > time.Minute {
			told(err)
			last = time.Now()
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
	}
}
