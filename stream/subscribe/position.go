package subscribe

import (
	"context"
	"errors"
	"fmt"

	"github.com/tailrace/tailrace/stream"
)

// A Position says how far a partition was read. It is comparable, and small
// enough to be stored with what was made of the records.
type Position struct {
	Offset       int64 // the next record's
	stream.Place       // of the last record; all zero: not known
	N            uint64
}

// Known says whether the position knows the record before it, so that the next
// one can be checked against it.
func (p Position) Known() bool { return p.N > 0 }

// An OrderError says that a record does not follow the one before it.
type OrderError struct {
	Partition stream.Partition
	Offset    int64
	Before    Position    // how far the partition had been read
	Mark      stream.Mark // of the record; zero if it has none
	Foreign   bool        // the record has no mark: another program wrote it
}

// Error says what was found.
func (e *OrderError) Error() string {
	at := fmt.Sprintf("read topic %s partition %d: record at offset %d", e.Partition.Topic, e.Partition.Number, e.Offset)
	switch {
	case e.Foreign:
		return at + " was not written by a capture: it has no header " + stream.MarkKey
	case e.Mark.N != e.Before.N+1:
		return fmt.Sprintf("%s is number %d of the partition, want %d", at, e.Mark.N, e.Before.N+1)
	}
	return fmt.Sprintf("%s lies before the one that precedes it: %v after %v", at, e.Mark.Place, e.Before.Place)
}

// Fatal is true: reading again gives the same.
func (e *OrderError) Fatal() bool { return true }

// Hint says what may have happened.
func (e *OrderError) Hint() string {
	switch {
	case e.Foreign:
		return "another program writes into the topic: give the capture a topic prefix of its own"
	case e.Mark.N <= e.Before.N:
		return "the topic was deleted and created again, or its capture was started anew: read it from the beginning, as a new subscriber"
	}
	return "records are missing: the topic was deleted and created again, or the broker lost data; read it from the beginning, as a new subscriber"
}

// A RecordError says which record cannot be read, or what it needs cannot be had.
type RecordError struct {
	Partition stream.Partition
	Offset    int64
	Err       error
}

// Error says which record, and why.
func (e *RecordError) Error() string {
	return fmt.Sprintf("read topic %s partition %d: record at offset %d: %v", e.Partition.Topic, e.Partition.Number, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *RecordError) Unwrap() error { return e.Err }

// Fatal is true unless the cause may pass: reading again gives the same bytes.
func (e *RecordError) Fatal() bool {
	var f interface{ Fatal() bool }
	if errors.As(e.Err, &f) {
		return f.Fatal()
	}
	return !errors.Is(e.Err, context.Canceled) && !errors.Is(e.Err, context.DeadlineExceeded)
}

// Hint says what may have happened.
func (e *RecordError) Hint() string {
	var h interface{ Hint() string }
	if errors.As(e.Err, &h) && h.Hint() != "" {
		return h.Hint()
	}
	return "the record is not as a capture writes it: look at it with `tailrace topic tail`"
}

// A sequence checks that records follow each other.
type sequence struct {
	last      Position
	compacted bool // numbers may be left out, and records come again
}

// verdicts of a sequence.
type verdict uint8

const (
	follows  verdict = iota // the record is the next
	repeated                // compaction wrote a record again that stands before
	gap                     // numbers are left out
	breaks                  // the record cannot come here
)

// judge says how a record with mark m stands to those before it. It changes
// nothing.
func (s *sequence) judge(m *stream.Mark) verdict {
	switch {
	case !s.last.Known() || m.Flags&stream.FlagRebased != 0:
		return follows
	case m.N > s.last.N+1:
		return gap
	case m.N <= s.last.N && s.compacted:
		return repeated
	case m.N <= s.last.N:
		return breaks
	case m.Flags&stream.FlagBackfill == 0 && m.Place.Compare(s.last.Place) < 0 && !s.compacted:
		return breaks
	}
	return follows
}

// take notes the record with mark m at offset.
func (s *sequence) take(offset int64, m *stream.Mark, v verdict) {
	s.last.Offset = offset + 1
	if v == repeated {
		return
	}
	s.last.N = m.N
	if m.Flags&stream.FlagBackfill == 0 || m.Place.Compare(s.last.Place) > 0 {
		s.last.Place = m.Place
	}
}
