package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

const (
	ownerHeader     = "tailrace-owner"
	maxFenceRetries = 10
)

// noopKey is the key of a record without meaning in Confluent's format.
var noopKey = []byte(`{"keytype":"NOOP","magic":0}`)

var _ registry.Log = (*schemaLog)(nil)

// schemaLog is a topic (`_schemas`) as the registry's log.
//
// On Apache Kafka its producer is transactional, so that an older writer is fenced and a
// write is whole or absent. A producer's epoch alone cannot tell who owns the log: after
// an unclear outcome a new producer has to be made, which fences whoever has taken over
// meanwhile. So the owner also writes its name into the log, as the header of a NOOP
// record, after it has made its producer. Whoever makes a new producer looks for a later
// name than its own and then gives up:
//
//	A: producer 1, name A      … write, no answer …   producer 3, reads name B: fenced
//	B:                     producer 2, name B  …  fenced by 3: producer 4, still name B: goes on
//
// On the embedded broker the lock of its directory leaves only one process.
type schemaLog struct {
	client        *stream.Client
	topic         string
	transactional bool
	log           *slog.Logger

	owner    []byte           // our name in the log
	named    int64            // offset of the record that carries it
	producer *stream.Producer // nil: none, or one whose last outcome is unclear
	lost     bool             // another name came after ours
	batch    stream.Batch
}

// openSchemaLog makes sure that the topic exists.
func openSchemaLog(ctx context.Context, b *broker, topic string, log *slog.Logger) (*schemaLog, error) {
	spec := stream.TopicSpec{Name: topic, Partitions: 1, Config: map[string]string{"cleanup.policy": "compact"}, Create: true}
	if b.embedded != nil {
		spec.Replication = 1
	}
	info, err := b.EnsureTopic(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("open the registry's topic: %w", err)
	}
	if info.Partitions != 1 {
		return nil, &settingError{fmt.Sprintf("the registry's topic %s has %d partitions", topic, info.Partitions), "it must have one; delete it if it is not a registry's", nil}
	}
	return &schemaLog{client: b.Client, topic: topic, transactional: b.transactional(), log: log, owner: []byte(rand.Text())}, nil
}

// Fence implements registry.Log: it makes a producer and writes our name.
func (l *schemaLog) Fence(ctx context.Context) error {
	for range maxFenceRetries {
		err := l.newProducer(ctx)
		if err == nil {
			err = l.claim(ctx)
		}
		if !errors.Is(err, stream.ErrFenced) {
			return err
		}
		// An earlier writer has made a new producer just now, to look whether it still
		// owns the log; it will find our name.
	}
	return registry.ErrFenced
}

// claim writes our name and notes where it stands.
func (l *schemaLog) claim(ctx context.Context) error {
	l.batch.Reset()
	header := []stream.RecordHeader{{Key: ownerHeader, Value: l.owner}}
	if err := l.batch.Append(time.Now().UnixMilli(), noopKey, nil, header); err != nil {
		return err
	}
	var err error
	l.named, err = l.send(ctx)
	return err
}

// Append implements registry.Log.
func (l *schemaLog) Append(ctx context.Context, entries []registry.Entry) error {
	if err := l.own(ctx); err != nil {
		return err
	}
	for range 2 {
		if err := l.fill(entries); err != nil {
			return err
		}
		_, err := l.send(ctx)
		if !errors.Is(err, stream.ErrFenced) {
			return err
		}
		// Nothing was written. Either we have lost the log, or somebody who lost it to us
		// has looked after it; in the second case we write again.
		if err := l.own(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("append to %s: another process fences this one again and again", l.topic)
}

// Read implements registry.Log.
func (l *schemaLog) Read(ctx context.Context, from int64, fn func(int64, registry.Entry) error) (int64, error) {
	if err := l.own(ctx); err != nil && !errors.Is(err, registry.ErrFenced) {
		return from, err
	}
	// A transaction's end is acknowledged before its marker is in the partition: what was
	// appended just now is not stable yet.
	if _, err := l.client.WaitStable(ctx, l.topic, 0); err != nil {
		return from, fmt.Errorf("read %s: %w", l.topic, err)
	}
	next, err := l.client.ReadCompacted(ctx, l.topic, 0, from, func(r *stream.Record) error {
		return fn(r.Offset, registry.Entry{Key: r.Key, Value: r.Value})
	})
	if err != nil {
		return from, fmt.Errorf("read %s: %w", l.topic, err)
	}
	return next, nil
}

// own makes sure that there is a producer and that the log is still ours. After an unclear
// outcome it makes a new producer: what the old one had under way is then written or never
// will be, and a name later than ours shows that we have lost the log.
func (l *schemaLog) own(ctx context.Context) error {
	switch {
	case l.lost:
		return registry.ErrFenced
	case l.producer != nil:
		return nil
	}
	if err := l.newProducer(ctx); err != nil {
		return err
	}
	_, err := l.client.ReadCompacted(ctx, l.topic, 0, l.named, func(r *stream.Record) error {
		if name, ok := r.Headers.Get(ownerHeader); ok && !bytes.Equal(name, l.owner) {
			l.lost = true
		}
		return nil
	})
	switch {
	case err != nil:
		l.producer = nil
		return fmt.Errorf("read %s: %w", l.topic, err)
	case l.lost:
		l.producer = nil
		return registry.ErrFenced
	}
	return nil
}

// newProducer makes a producer, which fences the one before, and waits until what that one
// left open has ended.
func (l *schemaLog) newProducer(ctx context.Context) error {
	l.producer = nil
	cfg := stream.ProducerConfig{Log: l.log}
	if l.transactional {
		cfg.TransactionalID = "tailrace." + l.topic
	}
	p, err := l.client.NewProducer(ctx, cfg)
	if err != nil {
		return fmt.Errorf("become the writer of %s: %w", l.topic, err)
	}
	if err := p.Settle(ctx, []stream.Partition{{Topic: l.topic}}); err != nil {
		return fmt.Errorf("become the writer of %s: %w", l.topic, err)
	}
	l.producer = p
	return nil
}

// fill puts entries into the batch.
func (l *schemaLog) fill(entries []registry.Entry) error {
	l.batch.Reset()
	now := time.Now().UnixMilli()
	for _, e := range entries {
		if err := l.batch.Append(now, e.Key, e.Value, nil); err != nil {
			return fmt.Errorf("append to %s: %w", l.topic, err)
		}
	}
	return nil
}

// send writes the batch durably and returns its first offset. After an error the producer
// is given up: what became of the batch is unclear, unless the error is ErrFenced.
func (l *schemaLog) send(ctx context.Context) (int64, error) {
	out, p := stream.Outgoing{Topic: l.topic, Batch: &l.batch}, l.producer
	l.producer = nil
	if err := l.batch.Seal(stream.None, l.transactional); err != nil {
		return 0, fmt.Errorf("append to %s: %w", l.topic, err)
	}
	if err := p.Produce(ctx, []*stream.Outgoing{&out}); err != nil {
		return 0, fmt.Errorf("append to %s: %w", l.topic, err)
	}
	if err := p.End(ctx, true); err != nil {
		return 0, fmt.Errorf("append to %s: %w", l.topic, err)
	}
	l.producer = p
	return out.Offset, nil
}
