package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

const (
	prefix     = "shop"
	endTopic   = prefix + ".transaction"
	partitions = 4

	txRows    = 10  // changes in a source transaction
	flushedTx = 500 // source transactions in a Kafka transaction
)

// filler writes a topic of orders and its END records as a capture does.
type filler struct {
	client   *stream.Client
	registry *registry.Client
	producer *stream.Producer

	table    *schemas.Table
	topic    string
	source   *schemas.SourceWriter
	inSource schemas.SourceTable
	keyID    int32
	valueID  int32
	endKey   int32
	endValue int32

	batches [partitions]stream.Batch
	ends    stream.Batch
	n       [partitions]uint64
	endN    uint64
	last    [partitions]uint64 // row of the open transaction; 0: none
	commit  uint64             // position of the open transaction's commit
	row     uint64
	now     int64

	order     order
	key, body []byte
	mark      []byte
}

func newFiller(ctx context.Context, client *stream.Client, reg *registry.Client) (*filler, error) {
	f := &filler{client: client, registry: reg, table: ordersTable(), commit: 1 << 20, now: time.Now().UnixMicro()}
	f.source = schemas.NewSourceWriter(schemas.SourceConfig{Version: "bench", Connector: "postgresql", Name: prefix, Database: "shop"})
	f.inSource = schemas.NewSourceTable(f.table.Namespace, f.table.Name)
	d, err := schemas.Derive(f.table, schemas.Naming{Prefix: prefix, Connector: "postgresql"})
	if err != nil {
		return nil, err
	}
	f.topic = d.Topic
	endKey, endValue := schemas.TransactionSchemas()
	for _, s := range []struct {
		id              *int32
		subject, schema string
	}{
		{&f.keyID, d.Topic + "-key", d.KeySchema}, {&f.valueID, d.Topic + "-value", d.ValueSchema},
		{&f.endKey, endTopic + "-key", endKey}, {&f.endValue, endTopic + "-value", endValue},
	} {
		if *s.id, err = reg.Register(ctx, s.subject, s.schema); err != nil {
			return nil, err
		}
	}
	for name, n := range map[string]int32{d.Topic: partitions, endTopic: 1} {
		if _, err := client.EnsureTopic(ctx, stream.TopicSpec{Name: name, Partitions: n, Replication: 1, Create: true}); err != nil {
			return nil, err
		}
	}
	f.producer, err = client.NewProducer(ctx, stream.ProducerConfig{TransactionalID: prefix + "-bench"})
	return f, err
}

// fill writes n changes of s.
func (f *filler) fill(ctx context.Context, s *shop, n int) error {
	for n > 0 {
		f.begin()
		for range min(n, txRows) {
			if err := f.change(s.next()); err != nil {
				return err
			}
			n--
		}
		if err := f.end(); err != nil {
			return err
		}
		if s.counts.transactions++; s.counts.transactions%flushedTx == 0 || n == 0 {
			if err := f.flush(ctx); err != nil {
				return fmt.Errorf("fill the topic: %w", err)
			}
		}
	}
	return nil
}

// begin begins a source transaction.
func (f *filler) begin() {
	before := f.commit
	f.commit += 4096
	f.now += 1000
	f.row = 0
	clear(f.last[:])
	f.source.SetTransaction(schemas.SourceTx{ID: f.commit >> 12, CommitMicros: f.now, LastCommitLSN: before})
}

// change writes a change's record; a delete's tombstone follows it.
func (f *filler) change(op byte, id int64, version uint8) (err error) {
	f.key = schemas.AppendLong(schemas.AppendFrame(f.key[:0], f.keyID), id)
	p := stream.PartitionOf(f.key[schemas.FrameSize:], partitions)
	v := schemas.AppendFrame(f.body[:0], f.valueID)
	if op == 'd' {
		v = schemas.AppendUnion(v, schemas.EnvelopeRow)
		if v, err = appendAvroKey(v, id, f.table); err != nil {
			return err
		}
		v = schemas.AppendUnion(v, schemas.EnvelopeNull)
	} else {
		f.order.make(id, version)
		v = schemas.AppendUnion(schemas.AppendUnion(v, schemas.EnvelopeNull), schemas.EnvelopeRow)
		if v, err = f.order.appendAvro(v, f.table); err != nil {
			return err
		}
	}
	v = f.source.Append(v, f.inSource, f.commit-4096+f.row)
	f.body = schemas.AppendEnvelopeTail(v, op, f.now)
	if err := f.put(p, f.body); err != nil || op != 'd' {
		return err
	}
	return f.put(p, nil)
}

func (f *filler) put(p int32, value []byte) error {
	f.row++
	f.n[p]++
	f.last[p] = f.row
	f.mark = stream.AppendMark(f.mark[:0], stream.Mark{Place: stream.Place{Epoch: 1, Pos: f.commit, Row: f.row}, N: f.n[p]})
	return f.batches[p].Append(f.now/1000, f.key, value, []stream.RecordHeader{{Key: stream.MarkKey, Value: f.mark}})
}

// end writes the END record of the open transaction.
func (f *filler) end() error {
	var parts []stream.EndPart
	for p, row := range f.last {
		if row > 0 {
			parts = append(parts, stream.EndPart{Topic: f.topic, Partition: int32(p), Row: row})
		}
	}
	f.row++
	f.endN++
	id := fmt.Sprintf("%d:%d", f.commit>>12, f.commit)
	counts := []schemas.CollectionCount{{Name: "public.orders", Count: int64(f.row - 1)}}
	key := schemas.AppendTransactionKey(schemas.AppendFrame(nil, f.endKey), id)
	value := schemas.AppendTransactionEnd(schemas.AppendFrame(nil, f.endValue), id, counts, f.now/1000)
	mark := stream.AppendMark(nil, stream.Mark{Flags: stream.FlagEnd, Place: stream.Place{Epoch: 1, Pos: f.commit, Row: f.row}, N: f.endN})
	return f.ends.Append(f.now/1000, key, value, []stream.RecordHeader{{Key: stream.MarkKey, Value: stream.AppendEndParts(mark, parts)}})
}

// flush sends what was written, as one Kafka transaction.
func (f *filler) flush(ctx context.Context) error {
	var out []*stream.Outgoing
	add := func(topic string, p int32, b *stream.Batch) error {
		if b.Len() == 0 {
			return nil
		}
		out = append(out, &stream.Outgoing{Topic: topic, Partition: p, Batch: b})
		return b.Seal(stream.LZ4, true)
	}
	for p := range f.batches {
		if err := add(f.topic, int32(p), &f.batches[p]); err != nil {
			return err
		}
	}
	if err := add(endTopic, 0, &f.ends); err != nil {
		return err
	}
	if err := f.producer.Produce(ctx, out); err != nil {
		return err
	}
	for _, o := range out {
		o.Batch.Reset()
	}
	return f.producer.End(ctx, true)
}
