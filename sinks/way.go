package sinks

import (
	"errors"
	"fmt"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// A Way is a decision that leads on from a stop: a flag of `tailrace sink resolve`, with its
// value. What it costs, Resolve says before it is done.
type Way struct {
	Flag  string // WayGap, …
	Value string // "" if the flag has none
}

// The flags of Ways.
const (
	WayGap       = "accept-gap"     // go on where the topics do, although records are missing
	WaySkip      = "skip-to"        // leave out what a partition has up to an offset
	WayBeginning = "from-beginning" // apply all that the topics hold again
	WayLetters   = "dlq"            // not a flag: retry or drop dead letters
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

// anew makes a stop after which only the topics' beginning leads on.
func anew(hint, format string, args ...any) error {
	return &stop{err: fmt.Errorf(format, args...), hint: hint, code: CodeRuntime, ways: []Way{{Flag: WayBeginning}}}
}

// behind is the way that leaves out one record.
func behind(p Partition, offset int64) Way {
	return Way{WaySkip, fmt.Sprintf("%s/%d@%d", p.Topic, p.Number, offset+1)}
}

// ledOn is an error with the decisions that lead on from it.
type ledOn struct {
	error
	ways []Way
}

func (e *ledOn) Unwrap() error { return e.error }
func (e *ledOn) Ways() []Way   { return e.ways }

// leadOn adds to errors of reading what leads on from them.
func leadOn(err error) error {
	if !IsFatal(err) || WaysOf(err) != nil {
		return err
	}
	var order *subscribe.OrderError
	var offset *stream.OffsetError
	var record *subscribe.RecordError
	switch {
	case errors.As(err, &order) && order.Foreign:
		return &ledOn{err, []Way{behind(order.Partition, order.Offset)}}
	case errors.As(err, &order), errors.As(err, &offset):
		return &ledOn{err, []Way{{Flag: WayGap}, {Flag: WayBeginning}}}
	case errors.As(err, &record):
		return &ledOn{err, []Way{behind(record.Partition, record.Offset)}}
	}
	return err
}

// refusedTransaction is why a sink that applies whole transactions stops at one.
type refusedTransaction struct {
	error
	id     string
	end    Partition
	offset int64 // of its END
}

// Error says which transaction.
func (e *refusedTransaction) Error() string {
	return fmt.Sprintf("%v (in source transaction %s)", e.error, e.id)
}

// Unwrap gives the cause.
func (e *refusedTransaction) Unwrap() error { return e.error }

// Ways names what leads on if the target cannot be mended.
func (e *refusedTransaction) Ways() []Way { return []Way{behind(e.end, e.offset)} }
