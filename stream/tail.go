package stream

import (
	"context"
	"fmt"
)

// A Tail is the end of a partition as a recovery sees it.
type Tail struct {
	Found     bool // whether there is a record with a mark at or after the offset asked for
	Offset    int64
	Timestamp int64 // ms
	Mark      Mark
	Key       []byte // nil for null; the caller's own, as is Value
	Value     []byte

	Start, End int64 // the partition's first offset, and the one after its last
	Records    int64 // committed records that were read
	Foreign    int64 // those of them without the header `tailrace`
	// ForeignOffset is the offset of the last of these; -1 if there is none.
	ForeignOffset int64
}

// Tail returns the last committed record with the header `tailrace` at or
// after the offset from. It reads forward from there, or from the start if
// retention has removed that offset. An offset after the partition's end is no
// error: nothing is found, and Start and End say what is there, since the
// topic must have been made anew.
func (c *Client) Tail(ctx context.Context, topic string, partition int32, from int64) (Tail, error) {
	o, err := c.Offsets(ctx, topic, partition)
	if err != nil {
		return Tail{}, err
	}
	t := Tail{Start: o.Start, End: o.End, ForeignOffset: -1}
	if from > o.End {
		return t, nil
	}
	_, err = c.readTo(ctx, topic, partition, max(from, o.Start), o.LastStable, t.take)
	if err != nil {
		return Tail{}, fmt.Errorf("read tail: %w", err)
	}
	return t, nil
}

// take notes one record.
func (t *Tail) take(r *Record) error {
	mark, _, found, err := r.Mark()
	if err != nil {
		return fmt.Errorf("read header of the record at offset %d: %w", r.Offset, err)
	}
	t.Records++
	if !found {
		t.Foreign++
		t.ForeignOffset = r.Offset
		return nil
	}
	t.Found, t.Offset, t.Timestamp, t.Mark = true, r.Offset, r.Timestamp, mark
	t.Key, t.Value = own(t.Key, r.Key), own(t.Value, r.Value)
	return nil
}

// own copies src into dst's memory; null stays null.
func own(dst, src []byte) []byte {
	if src == nil {
		return nil
	}
	if dst == nil {
		dst = make([]byte, 0, len(src))
	}
	return append(dst[:0], src...)
}
