package subscribe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// An identifier finds out what changes are, by their schema ids.
type identifier struct {
	tables *tables
	log    *slog.Logger
	table  *Table // of the last record, and its ids
	ids    ids
}

// identify finds out what a change is, and its table. parts are those of an END.
func (k *identifier) identify(ctx context.Context, c *Change, parts []byte) (err error) {
	switch {
	case c.Mark.Flags&stream.FlagEnd != 0:
		c.Op = OpEnd
		c.End, err = stream.ParseEndParts(parts)
		return err
	case c.Value == nil:
		c.Op = OpTombstone
		return nil
	}
	var id ids
	var body []byte
	if id.value, body, err = frameID(c.Value); err != nil {
		return fmt.Errorf("value: %w", err)
	}
	if c.Key != nil {
		if id.key, _, err = frameID(c.Key); err != nil {
			return fmt.Errorf("key: %w", err)
		}
	}
	if k.table == nil || k.ids != id {
		if k.table, err = k.find(ctx, id); err != nil {
			return err
		}
		k.ids = id
	}
	c.Table = k.table
	c.Op, err = c.Table.value.EnvelopeOp(body)
	return err
}

// find finds a table, waiting for two minutes if the registry is away.
func (k *identifier) find(ctx context.Context, id ids) (*Table, error) {
	const first, most, patience = 50 * time.Millisecond, 5 * time.Second, 2 * time.Minute
	since := time.Now()
	for pause := first; ; pause = min(2*pause, most) {
		t, err := k.tables.find(ctx, id)
		var e *SchemaError
		if err == nil || !errors.As(err, &e) || e.temporary() == nil || time.Since(since) > patience {
			return t, err
		}
		if pause == first {
			k.log.Warn("the registry does not answer; reading waits for it", "schema", e.ID, "error", e.Err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w (before: %v)", context.Cause(ctx), err)
		}
	}
}

// A Copyist makes changes of copies of records that a capture wrote, such as dead letters.
// It is not safe for concurrent use.
type Copyist struct{ known identifier }

// NewCopyist returns a Copyist. It asks cfg's registry; the client is not needed.
func NewCopyist(cfg Config) *Copyist {
	cfg = cfg.defaults()
	return &Copyist{identifier{tables: newTables(cfg.Registry), log: cfg.Log}}
}

// Change returns the change that a copy is of; it stood at offset in partition p. Its bytes
// are those of r. Since nothing is known of the records before it, Position does not say
// more than the record does.
func (y *Copyist) Change(ctx context.Context, p stream.Partition, offset int64, r *stream.Record) (Change, error) {
	var h headers
	fail := func(err error) (Change, error) {
		return Change{}, fmt.Errorf("read the copy of record %d of %s/%d: %w", offset, p.Topic, p.Number, err)
	}
	if err := h.read(r); err != nil {
		return fail(err)
	}
	c := Change{Partition: p, Offset: offset, Timestamp: r.Timestamp, Mark: h.mark, Key: r.Key, Value: r.Value, OldKey: h.oldKey, NewKey: h.newKey}
	if !h.found {
		return fail(errors.New("it has no header " + stream.MarkKey))
	}
	if err := y.known.identify(ctx, &c, h.rest); err != nil {
		return fail(err)
	}
	return c, nil
}

// AppendHeaders appends the headers with which a capture wrote the change, so that a copy
// has them too; they are views of the change's bytes, but for the mark.
func (c *Change) AppendHeaders(dst []stream.RecordHeader) []stream.RecordHeader {
	dst = append(dst, stream.RecordHeader{Key: stream.MarkKey, Value: stream.AppendMark(nil, c.Mark)})
	if c.NewKey != nil {
		dst = append(dst, stream.RecordHeader{Key: headerNewKey, Value: c.NewKey})
	}
	if c.OldKey != nil {
		dst = append(dst, stream.RecordHeader{Key: headerOldKey, Value: c.OldKey})
	}
	return dst
}
