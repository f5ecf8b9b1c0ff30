package sinks

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/tailrace/tailrace/stream"
)

// LetterBook is what a dead letter topic says to who does not own the letters: a command
// line. It is as the sink was when it told of its heads last, which it does after each
// change. It is not safe for concurrent use.
type LetterBook struct {
	topic    string
	next     int64
	chains   map[Partition]chain
	heads    map[Partition]Head
	requests map[string]int64 // by ID, their offsets
}

// ParkedLetter is a letter that is parked.
type ParkedLetter struct {
	Letter
	At   int64  // its offset in the dead letter topic
	Key  []byte // as the change has it, with the frame; nil: none
	Lane []byte // the key under which it waits, without the frame; empty: the whole table
}

// NewLetterBook returns an empty one for a sink.
func NewLetterBook(sink string) *LetterBook {
	return &LetterBook{
		topic: DeadLettersTopic(sink), chains: make(map[Partition]chain),
		heads: make(map[Partition]Head), requests: make(map[string]int64),
	}
}

// Topic returns the topic that it reads.
func (b *LetterBook) Topic() string { return b.topic }

// Read reads on to the end of the topic.
func (b *LetterBook) Read(ctx context.Context, c *stream.Client) error {
	if b.next == 0 {
		at, err := c.Offsets(ctx, b.topic, 0)
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		b.next = at.Start
	}
	next, err := c.ReadToEnd(ctx, b.topic, 0, b.next, b.note)
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	b.next = next
	return nil
}

func (b *LetterBook) note(r *stream.Record) error {
	rec, err := ParseDeadRecord(r)
	if err != nil {
		return err
	}
	p, ok := rec.partition()
	switch {
	case !ok:
		b.requests[rec.Request.ID] = r.Offset
	case rec.Head != nil:
		if rec.Head.Head >= b.heads[p].Head { // what a predecessor told late is older
			b.heads[p] = *rec.Head
		}
	default:
		if b.chains[p] == nil {
			b.chains[p] = make(chain)
		}
		b.chains[p][r.Offset] = &chained{*rec, bytes.Clone(r.Key), len(r.Key) + len(r.Value)}
	}
	return nil
}

// Parked returns what is parked, by partition in the order of the changes.
func (b *LetterBook) Parked() ([]ParkedLetter, error) {
	var out []ParkedLetter
	for _, p := range slices.SortedFunc(maps.Keys(b.heads), comparePartitions) {
		h := b.heads[p]
		s, err := b.chains[p].parking(h.Head, h.Low)
		if err != nil {
			return nil, lostLetters(b.topic, err)
		}
		causes := b.causes(p)
		from := len(out)
		for name, l := range s.lanes {
			for _, one := range *l {
				letter := ParkedLetter{*b.chains[p][one.at].Letter, one.at, b.chains[p][one.at].key, []byte(name)}
				if one.refused {
					letter.State, letter.Attempts = LetterRefused, one.attempts
				}
				if again := causes[one.offset]; again != nil {
					letter.Cause = again
				}
				out = append(out, letter)
			}
		}
		slices.SortFunc(out[from:], func(a, b ParkedLetter) int { return cmp.Compare(a.Offset, b.Offset) })
	}
	return out, nil
}

// causes returns why letters of a partition were refused again, by their offsets.
func (b *LetterBook) causes(p Partition) map[int64]*Cause {
	out := make(map[int64]*Cause)
	for _, e := range b.counted(p) {
		for i := 0; e.Outcome != nil && i < len(e.Outcome.Again); i++ {
			again := &e.Outcome.Again[i]
			if out[again.Offset] == nil { // the newest comes first
				out[again.Offset] = &again.Cause
			}
		}
	}
	return out
}

// Find returns the letter of the change at offset of a partition, parked or not, and what
// became of it; nil for nothing yet, or for no such letter.
func (b *LetterBook) Find(p Partition, offset int64) (letter *ParkedLetter, became *Outcome) {
	var again *RefusedMore
	for at, e := range b.counted(p) {
		if o := e.Outcome; o != nil {
			if became == nil && (slices.Contains(o.Applied, offset) || slices.Contains(o.Dropped, offset)) {
				became = o
			}
			for i := range o.Again {
				if again == nil && o.Again[i].Offset == offset {
					again = &o.Again[i]
				}
			}
			continue
		}
		if e.Letter.Offset != offset {
			continue
		}
		letter = &ParkedLetter{*e.Letter, at, e.key, unframed(e.key)}
		if letter.Whole {
			letter.Lane = nil
		}
		if again != nil {
			letter.State, letter.Attempts, letter.Cause = LetterRefused, again.Attempts, &again.Cause
		}
		return letter, became
	}
	return nil, nil
}

// Answer is what became of a request.
type Answer struct {
	Done    []Partition // where nothing is left to do
	Applied int
	Dropped int
	Again   int // letters that the target has refused again
}

// Answer returns what is known so far.
func (b *LetterBook) Answer(id string) Answer {
	var a Answer
	for _, p := range slices.SortedFunc(maps.Keys(b.chains), comparePartitions) {
		for _, e := range b.counted(p) {
			o := e.Outcome
			if o == nil || o.Request != id {
				continue
			}
			a.Applied, a.Dropped, a.Again = a.Applied+len(o.Applied), a.Dropped+len(o.Dropped), a.Again+len(o.Again)
			if o.Done {
				a.Done = append(a.Done, p)
			}
		}
	}
	return a
}

// counted gives a partition's entries that count, the newest first, by their offsets.
func (b *LetterBook) counted(p Partition) iter.Seq2[int64, *chained] {
	return func(yield func(int64, *chained) bool) {
		h, ok := b.heads[p]
		for at := h.Head; ok && at >= 0; {
			e := b.chains[p][at]
			if e == nil || !yield(at, e) {
				return // what is older the topic may not hold any more
			}
			at = e.prev(at)
		}
	}
}
