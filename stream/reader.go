package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go/protocol/listoffsets"
)

// Offsets are the places of a partition.
type Offsets struct {
	Start      int64 // the first offset that is there
	LastStable int64 // where read_committed readers stop: the first record of an open transaction, else the end
	End        int64 // the offset after the last record
}

// Offsets asks the partition's leader where the partition begins and ends.
func (c *Client) Offsets(ctx context.Context, topic string, partition int32) (Offsets, error) {
	const earliest, latest = -2, -1
	var o Offsets
	var err error
	if o.Start, err = c.listOffset(ctx, topic, partition, earliest, false); err != nil {
		return Offsets{}, err
	}
	// The end is asked for last, so that it is not before the last stable one.
	if o.LastStable, err = c.listOffset(ctx, topic, partition, latest, true); err != nil {
		return Offsets{}, err
	}
	if o.End, err = c.listOffset(ctx, topic, partition, latest, false); err != nil {
		return Offsets{}, err
	}
	return o, nil
}

func (c *Client) listOffset(ctx context.Context, topic string, partition int32, which int64, committed bool) (offset int64, err error) {
	req := &listoffsets.Request{
		ReplicaID: -1,
		Topics: []listoffsets.RequestTopic{{Topic: topic, Partitions: []listoffsets.RequestPartition{{
			Partition: partition, CurrentLeaderEpoch: -1, Timestamp: which,
		}}}},
	}
	if committed {
		req.IsolationLevel = 1
	}
	err = c.toLeader(ctx, opListOffsets, topic, partition, func(ctx context.Context, addr string) error {
		res, err := c.send(ctx, opListOffsets, addr, req, answerTimeout)
		if err != nil {
			return err
		}
		topics := res.(*listoffsets.Response).Topics
		if len(topics) != 1 || len(topics[0].Partitions) != 1 {
			return &Error{Op: opListOffsets, Topic: topic, Partition: partition, Message: "the answer leaves the partition out", act: actRefresh}
		}
		p := topics[0].Partitions[0]
		if p.ErrorCode != 0 {
			return answered(opListOffsets, topic, partition, Code(p.ErrorCode), "")
		}
		offset = p.Offset
		return nil
	})
	return offset, err
}

// stableLimit is for how long WaitStable waits at most.
const stableLimit = 5 * time.Minute

// WaitStable waits until no transaction is open in the partition, so that
// everything up to its end is either committed or aborted. It waits as long as
// ctx allows, at most five minutes; then the error is an ErrHanging.
func (c *Client) WaitStable(ctx context.Context, topic string, partition int32) (Offsets, error) {
	limited, cancel := context.WithTimeout(ctx, stableLimit)
	defer cancel()
	pause := 10 * time.Millisecond
	for seen := (Offsets{}); ; {
		o, err := c.Offsets(limited, topic, partition)
		switch {
		case err == nil && o.LastStable >= o.End:
			return o, nil
		case err == nil && sleep(limited, pause):
			seen, pause = o, min(pause*2, 500*time.Millisecond)
		case errors.Is(ctx.Err(), context.Canceled) || limited.Err() == nil || err != nil && seen == (Offsets{}):
			return seen, fmt.Errorf("wait for open transactions in topic %s partition %d: %w", topic, partition, cmp.Or(err, context.Cause(ctx)))
		case err == nil:
			return o, hanging(topic, partition, o)
		default:
			return seen, hanging(topic, partition, seen)
		}
	}
}

func hanging(topic string, partition int32, o Offsets) *Error {
	return &Error{
		Op: "wait for open transactions in", Topic: topic, Partition: partition, Err: ErrHanging, act: actStop,
		Message: fmt.Sprintf("the last stable offset stays at %d, the end is %d", o.LastStable, o.End),
		hint: fmt.Sprintf("another producer writes there, or a transaction hangs: kafka-transactions.sh --bootstrap-server HOST:PORT describe-producers --topic %s --partition %d, "+
			"and find-hanging; then abort it", topic, partition),
	}
}

// A Reader reads one partition from an offset on: in order, nothing left out
// but what was aborted, and Kafka's own markers. It never goes to another
// offset by itself. It is not safe for concurrent use.
type Reader struct {
	client    *Client
	topic     string
	partition int32
	options   FetchOptions

	offset        int64
	lastStable    int64
	highWatermark int64
	empty         int // answers in a row that held nothing although the broker was free to answer

	decoder Decoder
	filter  Filter
}

// NewReader returns a Reader that begins at the offset from.
func (c *Client) NewReader(topic string, partition int32, from int64, o FetchOptions) *Reader {
	return &Reader{
		client: c, topic: topic, partition: partition, options: o.defaults(),
		offset: from, lastStable: -1, highWatermark: -1,
	}
}

// Offset returns where reading goes on: after the last record that was given,
// and after what was dropped behind it.
func (r *Reader) Offset() int64 { return r.offset }

// LastStable returns the partition's last stable offset as of the last fetch;
// -1 before the first.
func (r *Reader) LastStable() int64 { return r.lastStable }

// HighWatermark returns the partition's end as of the last fetch; -1 before
// the first.
func (r *Reader) HighWatermark() int64 { return r.highWatermark }

// Read fetches once and gives each record to fn, in order. If there is none it
// waits for one, up to the options' MaxWait, and returns nil all the same. The
// record and its bytes are valid during fn only. If fn fails, Read returns its
// error as it is, and the next Read begins with that record. Offsets that are
// not there are an *OffsetError; bytes that cannot be read are a *DecodeError:
// nothing is skipped.
func (r *Reader) Read(ctx context.Context, fn func(*Record) error) error {
	f, err := r.client.Fetch(ctx, r.topic, r.partition, r.offset, r.options)
	if err != nil {
		return err
	}
	defer giveBuffer(f.RecordSet)
	r.lastStable, r.highWatermark = f.LastStable, f.HighWatermark
	from := r.offset
	if err := r.give(&f, fn); err != nil {
		return err
	}
	if r.offset > from {
		r.empty = 0
	} else if f.Throttle == 0 {
		r.empty++
	}
	if f.Throttle > 0 {
		sleep(ctx, f.Throttle)
	}
	return nil
}

// give walks the batches of f.
func (r *Reader) give(f *Fetched, fn func(*Record) error) error {
	r.decoder.Reset(f.RecordSet)
	r.filter.Reset(f.Aborted)
	from := r.offset
	for r.decoder.NextBatch() {
		b := r.decoder.Batch()
		if !r.options.ReadUncommitted && b.BaseOffset >= f.LastStable {
			return nil
		}
		if r.filter.Keep(b) {
			if err := r.giveBatch(fn); err != nil {
				return err
			}
		}
		r.offset = max(r.offset, b.NextOffset())
	}
	if err := r.decoder.Err(); err != nil {
		return fmt.Errorf("read topic %s partition %d: %w", r.topic, r.partition, err)
	}
	if r.decoder.Truncated() && r.offset == from {
		return fmt.Errorf("read topic %s partition %d: the broker cut off the first batch at offset %d", r.topic, r.partition, from)
	}
	return nil
}

// giveBatch gives the records of the current batch. A broker may begin with a
// batch that has records before the offset asked for.
func (r *Reader) giveBatch(fn func(*Record) error) error {
	for r.decoder.NextRecord() {
		rec := r.decoder.Record()
		if rec.Offset < r.offset {
			continue
		}
		if err := fn(rec); err != nil {
			return err
		}
		r.offset = rec.Offset + 1
	}
	if err := r.decoder.Err(); err != nil {
		return fmt.Errorf("read topic %s partition %d: %w", r.topic, r.partition, err)
	}
	return nil
}

// ReadToEnd gives every committed record from the offset from up to the last
// stable offset as of the call, and returns where reading would go on. Its
// errors are Read's.
func (c *Client) ReadToEnd(ctx context.Context, topic string, partition int32, from int64, fn func(*Record) error) (next int64, err error) {
	o, err := c.Offsets(ctx, topic, partition)
	if err != nil {
		return from, err
	}
	if from > o.End {
		return from, &OffsetError{Topic: topic, Partition: partition, Offset: from, Start: o.Start, End: o.End}
	}
	return c.readTo(ctx, topic, partition, from, o.LastStable, fn)
}

// ReadCompacted is ReadToEnd for a compacted topic, in which what counts is the
// last value of each key. There an offset below the start is no loss: whatever
// stood there has been written over, or has been written again further on (the
// embedded broker does that). Reading goes on at the start; records may come
// again with the same key and value.
func (c *Client) ReadCompacted(ctx context.Context, topic string, partition int32, from int64, fn func(*Record) error) (next int64, err error) {
	for next = from; ; {
		next, err = c.ReadToEnd(ctx, topic, partition, next, fn)
		var e *OffsetError
		if !errors.As(err, &e) || next >= e.Start {
			return next, err
		}
		next = e.Start
	}
}

// readTo reads up to the offset end.
func (c *Client) readTo(ctx context.Context, topic string, partition int32, from, end int64, fn func(*Record) error) (next int64, err error) {
	r := c.NewReader(topic, partition, from, FetchOptions{MaxBytes: 4 << 20, MaxWait: 50 * time.Millisecond})
	for r.offset < end {
		err := r.Read(ctx, func(rec *Record) error {
			if rec.Offset >= end {
				return errReadEnough
			}
			return fn(rec)
		})
		if errors.Is(err, errReadEnough) {
			return end, nil
		}
		if err != nil {
			return r.offset, err
		}
		// Compaction may have removed everything up to the end. Then the broker
		// answers with nothing although it may give everything below its last
		// stable offset.
		if r.empty >= 2 && r.lastStable >= end {
			return end, nil
		}
	}
	return r.offset, nil
}

var errReadEnough = errors.New("read up to the end")
