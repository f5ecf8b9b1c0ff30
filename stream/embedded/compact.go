package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tailrace/tailrace/stream"
)

const (
	compactBatch = 1 << 20 // bytes
	// tombstoneLife is for how long a deletion is kept for readers that have
	// not seen it.
	tombstoneLife = 24 * time.Hour
)

// A kept record is the last one with its key.
type kept struct {
	offset, timestamp int64
	key, value        []byte
	headers           []stream.RecordHeader
}

// compact writes the last record of each key again, behind all others, and
// then deletes what lies before. A kill at any moment leaves a log that says
// the same: at worst some keys twice, with the same value. Others wait
// meanwhile: their batches for the topic are answered with an error that
// producers try again, so that no value is written again after its successor.
func (k *keeper) compact(ctx context.Context, p *partition, id [16]byte, now time.Time) error {
	producer, err := k.client.NewProducer(ctx, stream.ProducerConfig{Timeout: 10 * time.Second})
	if err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	own, _ := producer.ID()
	k.guard.hold(&held{topic: p.topic, id: id, except: own})
	defer k.guard.hold(nil)
	records, end, err := k.lastOfKeys(ctx, p, now)
	if err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	if len(records) == 0 {
		return nil
	}
	out, err := batches(p, records)
	if err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	if err := producer.Produce(ctx, out); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	if out[0].Offset != end {
		return fmt.Errorf("compact: somebody wrote to the topic meanwhile: expected offset %d, got %d", end, out[0].Offset)
	}
	if err := k.delete(p, end); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	return k.noteLive(p)
}

// noteLive remembers what is left, so that the next compaction waits until
// there is twice as much.
func (k *keeper) noteLive(p *partition) (err error) {
	left := partition{}
	left.segments, err = segments(p.dir)
	k.live[p.dir] = left.size()
	return err
}

// lastOfKeys returns the last record of each key, in their order, and the end
// of the partition. Deletions are left out once they are old.
func (k *keeper) lastOfKeys(ctx context.Context, p *partition, now time.Time) ([]*kept, int64, error) {
	last := make(map[string]*kept)
	end, err := k.client.ReadCompacted(ctx, p.topic, p.number, 0, func(r *stream.Record) error {
		if r.Key == nil {
			return errors.New("a record has no key")
		}
		last[string(r.Key)] = &kept{r.Offset, r.Timestamp, slices.Clone(r.Key), clone(r.Value), r.Headers.AppendTo(nil)}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	maps.DeleteFunc(last, func(_ string, r *kept) bool {
		return r.value == nil && now.Sub(time.UnixMilli(r.timestamp)) > tombstoneLife
	})
	records := slices.Collect(maps.Values(last))
	slices.SortFunc(records, func(a, b *kept) int { return int(max(-1, min(1, a.offset-b.offset))) })
	return records, end, nil
}

// clone keeps null and empty apart.
func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// batches packs records.
func batches(p *partition, records []*kept) ([]*stream.Outgoing, error) {
	var out []*stream.Outgoing
	batch := new(stream.Batch)
	flush := func() error {
		if batch.Len() == 0 {
			return nil
		}
		if err := batch.Seal(stream.LZ4, false); err != nil {
			return err
		}
		out = append(out, &stream.Outgoing{Topic: p.topic, Partition: p.number, Batch: batch})
		batch = new(stream.Batch)
		return nil
	}
	for _, r := range records {
		if batch.Size() > 0 && batch.Size()+len(r.key)+len(r.value) > compactBatch {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		if err := batch.Append(r.timestamp, r.key, r.value, r.headers); err != nil {
			return nil, err
		}
	}
	return out, flush()
}
