// Package audit keeps the record of decisions that people took: a topic of one partition
// in which each entry carries the hash of the one before it, so that none can be changed,
// taken out or put in between unnoticed by who knows the last hash.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// Topic is where the entries are. Nothing in it is removed by the broker.
const Topic = "__tailrace.audit"

// The phases of a decision, each an entry: who dies in between leaves the first alone.
const (
	Decided = "decided"
	Done    = "done"
	Failed  = "failed"
)

// Entry is one thing that somebody decided, or what became of it.
type Entry struct {
	ID     string          `json:"id"` // of the decision; its entries have the same
	At     time.Time       `json:"at"`
	By     string          `json:"by"`
	Action string          `json:"action"` // as the command line says it, "capture resolve"
	Of     string          `json:"of"`     // "capture shop"
	Phase  string          `json:"phase"`
	Reason string          `json:"reason,omitempty"`
	Effect json.RawMessage `json:"effect,omitempty"` // what it does, as it was told
	Error  string          `json:"error,omitempty"`  // with Failed
}

// Chained is an entry in its place.
type Chained struct {
	Seq  uint64 `json:"seq"`  // from 1
	Prev string `json:"prev"` // hash of the one before; "" for the first
	Entry
	Hash   string `json:"hash,omitempty"` // not in the record, whose hash it is
	Offset int64  `json:"-"`
}

// record is the value of a record: the hash is over the bytes of the entry as they stand.
type record struct {
	Hash  string          `json:"hash"`
	Entry json.RawMessage `json:"entry"`
}

// Log is the chain as it was read.
type Log struct {
	Entries []Chained
	next    int64
	hashes  map[string]bool
	open    map[string]bool // entries that lost a race for their place, and have not come again
}

func newLog() *Log { return &Log{hashes: map[string]bool{"": true}, open: make(map[string]bool)} }

// Head is the hash of the last entry; "" if there is none.
func (l *Log) Head() string {
	if len(l.Entries) == 0 {
		return ""
	}
	return l.Entries[len(l.Entries)-1].Hash
}

// Has says whether an entry has a hash.
func (l *Log) Has(hash string) bool { return hash != "" && l.hashes[hash] }

// IsBroken says whether an error is a *BrokenError.
func IsBroken(err error) bool {
	var b *BrokenError
	return errors.As(err, &b)
}

// BrokenError says that the chain is not whole.
type BrokenError struct {
	Offset int64
	Why    string
}

// Error implements error.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("the audit log is broken at offset %d of %s: %s", e.Offset, Topic, e.Why)
}

// Hint says what it means.
func (e *BrokenError) Hint() string {
	return "an entry was changed or taken out, or somebody else wrote there; what stands before that offset is whole. Find out who can write to the topic; to begin a new log, keep a copy of this one and delete the topic"
}

// Fatal says that reading again gives the same.
func (e *BrokenError) Fatal() bool { return true }

// Read reads the log to its end, and checks it: the error is a *BrokenError if it is not
// whole, with what is whole beside it. Without a topic it is empty.
func Read(ctx context.Context, client *stream.Client) (*Log, error) {
	l := newLog()
	if err := l.More(ctx, client); err != nil {
		return l, err
	}
	for id := range l.open {
		return l, &BrokenError{l.next - 1, fmt.Sprintf("the entry %s has no place in the chain", id)}
	}
	return l, nil
}

// More reads on to the end.
func (l *Log) More(ctx context.Context, client *stream.Client) error {
	if _, err := client.Topic(ctx, Topic); errors.Is(err, stream.ErrNoTopic) && l.next == 0 {
		return nil // Offsets would wait for it
	}
	at, err := client.Offsets(ctx, Topic, 0)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	if at.Start > l.next {
		return &BrokenError{at.Start, "what stood before was removed"}
	}
	if at.End < l.next {
		return &BrokenError{at.End, "what stood behind is gone"}
	}
	if l.next, err = client.ReadToEnd(ctx, Topic, 0, l.next, l.take); err != nil {
		var broken *BrokenError
		if errors.As(err, &broken) {
			return broken
		}
		return fmt.Errorf("read the audit log: %w", err)
	}
	return nil
}

// take takes one record. One that carries the hash of an entry further back than the last
// lost a race: its writer writes it again at once.
func (l *Log) take(r *stream.Record) error {
	var rec record
	var e Chained
	if err := strict(r.Value, &rec); err != nil {
		return &BrokenError{r.Offset, "it is no entry: " + err.Error()}
	}
	if err := strict(rec.Entry, &e); err != nil || e.Hash != "" {
		return &BrokenError{r.Offset, fmt.Sprint("it is no entry: ", err)}
	}
	if hashOf(rec.Entry) != rec.Hash {
		return &BrokenError{r.Offset, "its hash is not that of its content"}
	}
	name := e.ID + "/" + e.Phase
	switch {
	case e.Prev == l.Head() && e.Seq == uint64(len(l.Entries)+1):
		e.Hash, e.Offset = rec.Hash, r.Offset
		l.Entries = append(l.Entries, e)
		l.hashes[rec.Hash] = true
		delete(l.open, name)
	case l.hashes[e.Prev]:
		l.open[name] = true
	default:
		return &BrokenError{r.Offset, "it does not follow the entry before it"}
	}
	return nil
}

func strict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func hashOf(entry []byte) string {
	sum := sha256.Sum256(entry)
	return hex.EncodeToString(sum[:])
}

// races bounds how often an entry is written again because others write at the same time.
const races = 10

// Append adds an entry, and returns where it stands. A log that is broken takes none.
func Append(ctx context.Context, client *stream.Client, e Entry) (*Chained, error) {
	_, err := client.EnsureTopic(ctx, stream.TopicSpec{Name: Topic, Partitions: 1, Create: true, Config: map[string]string{
		"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1",
	}})
	if err != nil {
		return nil, fmt.Errorf("make the audit log: %w", err)
	}
	prod, err := client.NewProducer(ctx, stream.ProducerConfig{})
	if err != nil {
		return nil, fmt.Errorf("write the audit log: %w", err)
	}
	l := newLog()
	if err := l.More(ctx, client); err != nil {
		return nil, err
	}
	for range races {
		at, err := l.write(ctx, prod, e)
		if err != nil {
			return nil, fmt.Errorf("write the audit log: %w", err)
		}
		if err := l.More(ctx, client); err != nil {
			return nil, err
		}
		for i := range l.Entries {
			if l.Entries[i].Offset == at {
				return &l.Entries[i], nil
			}
		}
	}
	return nil, errors.New("write the audit log: others write at the same time, again and again")
}

// write writes an entry behind the last that is known.
func (l *Log) write(ctx context.Context, prod *stream.Producer, e Entry) (offset int64, err error) {
	entry, err := json.Marshal(Chained{Seq: uint64(len(l.Entries) + 1), Prev: l.Head(), Entry: e})
	if err != nil {
		return 0, err
	}
	value, err := json.Marshal(record{Hash: hashOf(entry), Entry: entry})
	if err != nil {
		return 0, err
	}
	var b stream.Batch
	if err := b.Append(e.At.UnixMilli(), []byte(e.ID), value, nil); err != nil {
		return 0, err
	}
	if err := b.Seal(stream.None, false); err != nil {
		return 0, err
	}
	out := &stream.Outgoing{Topic: Topic, Batch: &b}
	err = prod.Produce(ctx, []*stream.Outgoing{out})
	return out.Offset, err
}
