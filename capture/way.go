package capture

import (
	"errors"
	"fmt"
)

// A Way is a decision that leads on from a stop: a flag of `tailrace capture resolve`, with
// its value. What it costs, Resolve says before it is done.
type Way struct {
	Flag  string // WayEpoch, …
	Value string // "" if the flag has none
}

// The flags of Ways.
const (
	WayEpoch  = "new-epoch"     // read the tables anew, in a new epoch
	WaySkip   = "skip-to"       // leave out what the log has up to a position
	WaySchema = "accept-schema" // register a schema that the registry finds incompatible
	WayKeys   = "repartition"   // give a topic's keys to all of its partitions
)

// WaysOf returns the decisions that lead on from err, the first the most likely; none: what
// the error speaks of must be mended.
func WaysOf(err error) []Way {
	var w interface{ Ways() []Way }
	if errors.As(err, &w) {
		return w.Ways()
	}
	return nil
}

// epochf makes a stop after which only a new epoch leads on: what the topics hold and what
// the log says cannot be brought together.
func epochf(hint, format string, args ...any) error {
	return &stop{err: fmt.Errorf(format, args...), hint: hint, ways: []Way{{Flag: WayEpoch}}}
}

// located is a fatal error that was met inside a source transaction.
type located struct {
	err  error
	at   Position // of the commit
	id   string
	ways []Way
}

func (e *located) Error() string {
	return fmt.Sprintf("%v (in transaction %s, committed at %s)", e.err, e.id, e.at)
}
func (e *located) Unwrap() error { return e.err }
func (e *located) Ways() []Way   { return e.ways }

// locate adds to a fatal error in which transaction it was met, so that the transaction can
// be left out: reading goes on right behind the place of its commit. What is about the
// machine, or about the log as a whole, would be met again.
func (p *pipeline) locate(err error) error {
	var env interface{ Environment() bool }
	ways := WaysOf(err)
	switch {
	case !IsFatal(err) || !p.open || p.prog.reading:
		return err
	case errors.As(err, &env) && env.Environment():
		return err
	case len(ways) > 0 && ways[0].Flag == WayEpoch:
		return err
	}
	at := placePosition(p.tx)
	behind := at
	behind.Offset++
	return &located{err, at, string(p.txID), append(append([]Way{}, ways...), Way{WaySkip, behind.String()})}
}
