package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

// readTails reads the last record of every partition that the capture may have written to.
func readTails(ctx context.Context, cfg *Config, s *state) (map[PartitionID]tail, error) {
	ids := s.known()
	tails := make([]tail, len(ids))
	err := parallel(ctx, len(ids), func(ctx context.Context, i int) (err error) {
		rec, ok := s.partitions[ids[i]]
		if !ok {
			rec.Offset = -1
		}
		tails[i], err = readTail(ctx, cfg, ids[i], rec)
		return err
	})
	m := make(map[PartitionID]tail, len(ids))
	for i, id := range ids {
		m[id] = tails[i]
	}
	return m, err
}

// parallel calls fn for 0 … n-1, eight at a time, and returns the first error.
func parallel(ctx context.Context, n int, fn func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, 8) {
		wg.Go(func() {
			for i := range next {
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// readTail reads the last committed record of one partition that the capture has routed
// to, from the offset in its state record on.
func readTail(ctx context.Context, cfg *Config, id PartitionID, rec partitionState) (tail, error) {
	at, err := cfg.Client.WaitStable(ctx, id.Topic, id.Number)
	if errors.Is(err, stream.ErrNoTopic) {
		return tail{}, epochf("it was deleted, or given fewer partitions; what it held is gone",
			"partition %s does not exist any more: %w", id, err)
	}
	if err != nil {
		return tail{}, fmt.Errorf("wait for %s: %w", id, err)
	}
	t, err := lastRecord(ctx, cfg, id, max(rec.Offset, rec.Past, at.Start))
	switch {
	case err == nil && !t.known && rec.Past > rec.Offset && rec.Past <= at.End: // nothing of ours since
		return tail{n: rec.N, place: rec.Place, flags: readFlag(rec.Read), offset: rec.Offset}, nil
	case err != nil || t.known && (cfg.Transactional || at.Start <= rec.Offset || t.n >= rec.N):
		return t, err
	case t.known: // the embedded broker's compaction wrote older ones again, and let go of the last
		return tail{n: rec.N, place: rec.Place, flags: readFlag(rec.Read), offset: rec.Offset}, nil
	case at.Start > rec.Offset:
		return expired(cfg, rec, at), nil
	}
	return rolledBack(ctx, cfg, id, rec, at)
}

// rolledBack is the tail of a partition that holds nothing committed from the record on
// that the state tells of. Compaction may have taken it, a delete with its tombstone; then
// it counts as if it were there. But if it stands there aborted the commit was torn, and if
// the partition ends before it the broker has lost the end: what stands before it counts,
// or what the state says that stood there.
func rolledBack(ctx context.Context, cfg *Config, id PartitionID, rec partitionState, at stream.Offsets) (tail, error) {
	if rec.Offset < at.End {
		if there, err := holds(ctx, cfg, id, rec.Offset); err != nil || !there {
			return expired(cfg, rec, at), err
		}
	}
	t, err := lastRecord(ctx, cfg, id, at.Start)
	switch {
	case err != nil || t.known && (t.n >= rec.Before || rec.Offset >= at.End):
		return t, err
	case at.End == 0:
		return tail{}, epochf("what it held is gone",
			"partition %s is empty, but a record was acknowledged at offset %d: the topic was made anew", id, rec.Offset)
	}
	return tail{n: rec.Before, place: rec.BeforePlace, flags: readFlag(rec.BeforeRead), offset: at.End - 1}, nil
}

// holds says whether a record stands at an offset, committed or not.
func holds(ctx context.Context, cfg *Config, id PartitionID, offset int64) (there bool, err error) {
	r := cfg.Client.NewReader(id.Topic, id.Number, offset, stream.FetchOptions{ReadUncommitted: true})
	err = r.Read(ctx, func(rec *stream.Record) error {
		there = there || rec.Offset == offset
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("read %s at offset %d: %w", id, offset, err)
	}
	return there, nil
}

// lastRecord returns the last committed record at or after offset from as a tail; known is
// false if there is none.
func lastRecord(ctx context.Context, cfg *Config, id PartitionID, from int64) (tail, error) {
	t, err := cfg.Client.Tail(ctx, id.Topic, id.Number, from)
	if errors.Is(err, stream.ErrOffsetOutOfRange) { // retention went on meanwhile: the next start sees it
		return tail{}, fmt.Errorf("read the end of %s: %v", id, err)
	}
	if err != nil {
		return tail{}, fmt.Errorf("read the end of %s: %w", id, err)
	}
	if t.Foreign > 0 {
		return tail{}, epochf("nobody else may write to the capture's topics: stop the other writer, or choose another topic prefix",
			"partition %s holds %d records that are not tailrace's, the last at offset %d", id, t.Foreign, t.ForeignOffset)
	}
	if !t.Found {
		return tail{}, nil
	}
	return tail{n: t.Mark.N, place: t.Mark.Place, known: true, key: body(t.Key), value: t.Value, flags: t.Mark.Flags, offset: t.Offset}, nil
}

// expired is the tail of a partition whose records are gone by retention or compaction: the
// one that the state remembers. Without transactions every offset is a record, so that those after it
// that no state tells of can be counted. With transactions they cannot be told from
// aborted ones; there none can be, unless the broker tore a commit.
func expired(cfg *Config, rec partitionState, at stream.Offsets) tail {
	t := tail{n: rec.N, place: rec.Place, flags: readFlag(rec.Read), offset: rec.Offset}
	if !cfg.Transactional {
		t.unseen = uint64(at.End - 1 - rec.Offset)
		t.n += t.unseen
		t.offset = at.End - 1
	}
	return t
}

// checkUnseen makes sure that the records which no state tells of, and which are gone, come
// from the log: while a backfill is under way they may be rows of it, which no replay meets.
func checkUnseen(s *state, tails map[PartitionID]tail) error {
	for _, b := range s.listBackfills() {
		for id, t := range tails {
			if t.unseen > 0 && !b.State.Ended() {
				return epochf(nothingSince+"; give the topic a longer retention", "retention took %d records from partition %s before the state told of them, while backfill %s was under way",
					t.unseen, id, b.ID)
			}
		}
	}
	return nil
}

// readFlag returns the flags of a mark as far as the state remembers them.
func readFlag(read bool) byte {
	if read {
		return stream.FlagBackfill
	}
	return 0
}

// tailOp returns the operation of a tail's record, from its envelope.
func tailOp(ctx context.Context, cfg *Config, t *tail) (byte, error) {
	switch {
	case !t.known || t.value == nil:
		return 0, nil
	case t.flags&stream.FlagEnd != 0:
		return opEnd, nil
	case len(t.value) < frameSize || t.value[0] != 0:
		return 0, errors.New("value without a schema id")
	}
	id := int32(binary.BigEndian.Uint32(t.value[1:frameSize]))
	var text string
	err := retry(ctx, func(err error) {
		cfg.Log.Warn("waiting for the schema registry", "schema", id, "error", err)
	}, func() (err error) {
		text, err = cfg.Registry.SchemaByID(ctx, id)
		return err
	})
	if err != nil {
		return 0, err
	}
	schema, err := schemas.CompileSchema(text)
	if err != nil {
		return 0, fmt.Errorf("schema %d: %w", id, err)
	}
	return schema.EnvelopeOp(t.value[frameSize:])
}
