package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

// Dead letters are the changes that a target refuses, and those that wait behind one: the
// later changes of the same key. They stand in a topic of one partition, in which nothing is
// ever written over. A record's header tailrace.dlq says what it is, as JSON of a DeadRecord:
//
//	letter   a change: key, value and headers are the original's
//	outcome  what became of letters: applied, dropped, refused again
//	head     how far the entries of a partition count, for readers without the target
//	request  what a person asks for
//
// Letters and outcomes are entries. The entries of one source partition are a chain: each
// names the one before it. What counts is what the chain has up to its head, and the head
// stands in the target, moved by the Apply that moves the position, under the same fence:
// in the position of the partition headPartition. So an entry that was written and not yet
// counted when its writer died, or that was written by somebody who had been replaced, is of
// no effect. Entries are written before the Apply that makes them count:
//
//	letters    the Apply that moves the position past them
//	outcome    the Apply that applies the letters it names; of dropped ones, an empty Apply
//
// Letters that count may lie ahead of the position: who reads them again finds them there,
// by their offset, and writes them no second time.

// DeadLettersTopic returns the topic of a sink's dead letters.
func DeadLettersTopic(sink string) string { return "__tailrace." + sink + ".dlq" }

// DeadLetterHeader is the header by which a record of the topic says what it is.
const DeadLetterHeader = "tailrace.dlq"

// DeadRecord is what the header of a record says: one of its fields is set.
type DeadRecord struct {
	Letter  *Letter  `json:"letter,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
	Head    *Head    `json:"head,omitempty"`
	Request *Request `json:"request,omitempty"`
}

// The states of a letter.
const (
	LetterRefused = "refused" // the target does not take it
	LetterWaiting = "waiting" // it waits behind a refused one
)

// Letter says of a dead letter where it comes from and why it is there.
type Letter struct {
	Sink      string    `json:"sink"`
	State     string    `json:"state"`
	Whole     bool      `json:"whole_table,omitempty"` // waits with all of its partition, not only with its key
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Epoch     uint64    `json:"epoch"`
	File      uint64    `json:"file,omitempty"`
	Order     uint64    `json:"order"` // place of the commit in the log
	Row       uint64    `json:"row"`
	N         uint64    `json:"n"`
	Time      time.Time `json:"time"`
	Attempts  int       `json:"attempts"` // how often the target was asked
	Cause     *Cause    `json:"cause,omitempty"`
	Prev      *int64    `json:"prev,omitempty"` // offset of the entry before it in its partition's chain, -1: none; absent: it is the record before
}

// Cause is why a target refuses a change.
type Cause struct {
	Text string `json:"text"`
	Code string `json:"code,omitempty"` // SQLSTATE, HTTP status
	Hint string `json:"hint,omitempty"`
}

// Outcome says what became of letters of one partition.
type Outcome struct {
	Topic     string        `json:"topic"`
	Partition int32         `json:"partition"`
	Time      time.Time     `json:"time"`
	Request   string        `json:"request,omitempty"` // ID of what was asked for; none: a TRUNCATE
	Asked     int64         `json:"asked"`             // offset of the request; -1
	Done      bool          `json:"done,omitempty"`    // nothing is left to do for the request in the partition
	Applied   []int64       `json:"applied,omitempty"` // offsets in the source topic
	Dropped   []int64       `json:"dropped,omitempty"`
	Again     []RefusedMore `json:"again,omitempty"`
	Reason    string        `json:"reason,omitempty"` // of what was dropped
	Prev      int64         `json:"prev"`             // as a letter's
}

// RefusedMore is a letter that the target was asked for again in vain.
type RefusedMore struct {
	Offset   int64 `json:"offset"`
	Attempts int   `json:"attempts"`
	Cause    Cause `json:"cause"`
}

// Head says that the entries of a partition up to one count.
type Head struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Head      int64  `json:"head"` // offset of the entry
	Low       int64  `json:"low"`  // offset of the oldest letter that is still parked; after the head: none is
}

// What can be asked for.
const (
	ActionRetry = "retry"
	ActionDrop  = "drop"
)

// Request asks the sink to do something with letters that were there when it was written.
// A drop drops what is refused and applies what waits behind it, or drops that too.
type Request struct {
	ID          string    `json:"id"`
	Action      string    `json:"action"`
	WithWaiting bool      `json:"with_waiting,omitempty"`
	Topics      []string  `json:"topics,omitempty"` // letters of these topics; with Keys empty too: all
	Keys        []ParkedK `json:"keys,omitempty"`   // of these keys
	Reason      string    `json:"reason,omitempty"`
	By          string    `json:"by,omitempty"`
	Time        time.Time `json:"time"`
}

// ParkedK names a key with parked letters.
type ParkedK struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Key       []byte `json:"key"` // the key's Avro, without the frame; empty: the whole table
	// First is the offset of its first letter: if that is another by then, nothing is done.
	First int64 `json:"first"`
}

// header makes the header of a record.
func (d *DeadRecord) header() (stream.RecordHeader, error) {
	text, err := json.Marshal(d)
	return stream.RecordHeader{Key: DeadLetterHeader, Value: text}, err
}

var errNoDeadLetter = errors.New("it has no readable header " + DeadLetterHeader)

// ParseDeadRecord reads the header of a record of a dead letter topic.
func ParseDeadRecord(r *stream.Record) (*DeadRecord, error) {
	text, ok := r.Headers.Get(DeadLetterHeader)
	var d DeadRecord
	if !ok {
		return nil, foreignLetter(r.Offset, errNoDeadLetter)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, foreignLetter(r.Offset, fmt.Errorf("%w: %w", errNoDeadLetter, err))
	}
	kinds := 0
	for _, is := range []bool{d.Letter != nil, d.Outcome != nil, d.Head != nil, d.Request != nil} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, foreignLetter(r.Offset, errNoDeadLetter)
	}
	return &d, nil
}

func foreignLetter(offset int64, err error) error {
	return anew("if a newer tailrace wrote it, run that version; nobody else may write there", "read dead letters: record at offset %d: %w", offset, err)
}

// partition returns whose entry a record is; ok is false for a request.
func (d *DeadRecord) partition() (p Partition, ok bool) {
	switch {
	case d.Letter != nil:
		return Partition{Topic: d.Letter.Topic, Number: d.Letter.Partition}, true
	case d.Outcome != nil:
		return Partition{Topic: d.Outcome.Topic, Number: d.Outcome.Partition}, true
	case d.Head != nil:
		return Partition{Topic: d.Head.Topic, Number: d.Head.Partition}, true
	}
	return Partition{}, false
}

// AskDeadLetters writes a request and returns its offset. The sink that owns the letters
// does it, at once if it runs.
func AskDeadLetters(ctx context.Context, c *stream.Client, sink string, r *Request) (int64, error) {
	producer, err := c.NewProducer(ctx, stream.ProducerConfig{})
	if err != nil {
		return 0, err
	}
	w := &deadWriter{topic: DeadLettersTopic(sink), producer: producer}
	return w.write(ctx, &DeadRecord{Request: r})
}

// keyBody returns a change's key without the frame of its schema.
func keyBody(c *Change) []byte { return unframed(c.Key) }

func unframed(key []byte) []byte { return key[min(len(key), schemas.FrameSize):] }

// deadWriter appends to a dead letter topic.
type deadWriter struct {
	topic    string
	producer *stream.Producer
	batch    stream.Batch
}

// write appends one record that is no letter, and returns its offset.
func (w *deadWriter) write(ctx context.Context, d *DeadRecord) (int64, error) {
	h, err := d.header()
	if err != nil {
		return 0, err
	}
	if err := w.batch.Append(time.Now().UnixMilli(), nil, nil, []stream.RecordHeader{h}); err != nil {
		return 0, err
	}
	return w.flush(ctx)
}

var errUnknownOffset = errors.New("the broker does not say where the record stands")

// flush writes the batch and returns its first offset.
func (w *deadWriter) flush(ctx context.Context) (int64, error) {
	defer w.batch.Reset()
	if err := w.batch.Seal(stream.LZ4, false); err != nil {
		return 0, err
	}
	out := &stream.Outgoing{Topic: w.topic, Batch: &w.batch}
	if err := w.producer.Produce(ctx, []*stream.Outgoing{out}); err != nil {
		return 0, fmt.Errorf("write dead letters: %w", err)
	}
	if out.Offset < 0 {
		return 0, fmt.Errorf("write dead letters: %w", errUnknownOffset)
	}
	return out.Offset, nil
}
