package sinktest

import (
	"context"
	"testing"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// Writer writes topics as a capture of a PostgreSQL database does. It is not safe for
// concurrent use.
type Writer struct {
	tb       testing.TB
	cfg      subscribe.Config
	Prefix   string
	producer *stream.Producer
	source   *schemas.SourceWriter
	n        map[sinks.Partition]uint64
	end      sinks.Partition
	endKey   int32
	endValue int32

	open  map[sinks.Partition]*stream.Batch
	order uint64
	row   uint64
	last  map[sinks.Partition]uint64 // rows of the open transaction
}

// Table is one version of a table with its topic.
type Table struct {
	*schemas.Table
	Topic      string
	partitions int32
	keyID      int32
	valueID    int32
}

// Change is one change of a row. Rows are values in the table's column order, as Encode takes
// them.
type Change struct {
	Table  *Table
	Op     byte
	Row    []any // after; of a delete: the row that is gone, or only its key columns
	OldKey []any // of an update that changes the key: the key columns before, in key order
	Flags  byte
}

// NewWriter makes a writer for a prefix that nobody uses.
func NewWriter(tb testing.TB, cfg subscribe.Config, prefix string) *Writer {
	tb.Helper()
	w := &Writer{
		tb: tb, cfg: cfg, Prefix: prefix, end: sinks.Partition{Topic: prefix + ".transaction"}, order: 1000,
		n: make(map[sinks.Partition]uint64), open: make(map[sinks.Partition]*stream.Batch),
		source: schemas.NewSourceWriter(schemas.SourceConfig{Version: "test", Connector: "postgresql", Name: prefix, Database: "db"}),
	}
	w.connect()
	key, value := schemas.TransactionSchemas()
	w.endKey, w.endValue = w.register(w.end.Topic+"-key", key), w.register(w.end.Topic+"-value", value)
	w.topic(w.end.Topic, 1)
	return w
}

// connect makes a producer: one of its own for a topic that was made anew.
func (w *Writer) connect() {
	w.tb.Helper()
	var err error
	if w.producer, err = w.cfg.Client.NewProducer(w.ctx(), stream.ProducerConfig{}); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *Writer) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	w.tb.Cleanup(cancel)
	return ctx
}

func (w *Writer) register(subject, schema string) int32 {
	w.tb.Helper()
	id, err := w.cfg.Registry.Register(w.ctx(), subject, schema)
	if err != nil {
		w.tb.Fatal(err)
	}
	return id
}

func (w *Writer) topic(name string, partitions int32) {
	w.tb.Helper()
	if _, err := w.cfg.Client.EnsureTopic(w.ctx(), stream.TopicSpec{Name: name, Partitions: partitions, Replication: 1, Create: true}); err != nil {
		w.tb.Fatal(err)
	}
}

// Table makes the topic of a table, or the next version of a table.
func (w *Writer) Table(t *schemas.Table, partitions int32) *Table {
	w.tb.Helper()
	d, err := schemas.Derive(t, schemas.Naming{Prefix: w.Prefix, Connector: "postgresql"})
	if err != nil {
		w.tb.Fatal(err)
	}
	out := &Table{Table: t, Topic: d.Topic, partitions: partitions, valueID: w.register(d.Topic+"-value", d.ValueSchema)}
	if d.KeySchema != "" {
		out.keyID = w.register(d.Topic+"-key", d.KeySchema)
	}
	w.topic(d.Topic, partitions)
	return out
}

// Tx writes a source transaction with its END.
func (w *Writer) Tx(changes ...Change) {
	w.tb.Helper()
	w.Begin()
	for i := range changes {
		w.Write(&changes[i])
	}
	w.End()
	w.Flush()
}

// Begin begins a source transaction.
func (w *Writer) Begin() {
	w.order += 10
	w.row, w.last = 0, make(map[sinks.Partition]uint64)
	w.source.SetTransaction(schemas.SourceTx{ID: w.order, CommitMicros: time.Now().UnixMicro()})
}

// Write writes one change, which may be several records.
func (w *Writer) Write(c *Change) {
	w.tb.Helper()
	t := c.Table
	switch {
	case c.Op == sinks.OpTruncate:
		for p := range t.partitions {
			w.put(sinks.Partition{Topic: t.Topic, Number: p}, nil, w.value(c, nil, nil), c.Flags)
		}
	case c.OldKey != nil:
		old := make([]any, len(t.Columns))
		for i, k := range t.Key {
			old[k] = c.OldKey[i]
		}
		json := func(name string) stream.RecordHeader {
			return stream.RecordHeader{Key: name, Value: []byte(`{"key":0}`)}
		}
		w.keyed(t, old, w.value(&Change{Table: t, Op: sinks.OpDelete}, old, nil), c.Flags, json("__debezium.newkey"))
		w.keyed(t, old, nil, c.Flags, json("__debezium.newkey"))
		w.keyed(t, c.Row, w.value(&Change{Table: t, Op: sinks.OpCreate}, nil, c.Row), c.Flags, json("__debezium.oldkey"))
	case c.Op == sinks.OpDelete:
		w.keyed(t, c.Row, w.value(c, c.Row, nil), c.Flags)
		if t.keyID != 0 {
			w.keyed(t, c.Row, nil, c.Flags)
		}
	default:
		w.keyed(t, c.Row, w.value(c, nil, c.Row), c.Flags)
	}
}

func (w *Writer) keyed(t *Table, row []any, value []byte, flags byte, headers ...stream.RecordHeader) {
	w.tb.Helper()
	if t.keyID == 0 {
		w.put(sinks.Partition{Topic: t.Topic}, nil, value, flags, headers...)
		return
	}
	key := schemas.AppendFrame(nil, t.keyID)
	for _, k := range t.Key {
		key = w.column(key, &t.Columns[k], row[k])
	}
	p := stream.PartitionOf(key[schemas.FrameSize:], t.partitions)
	w.put(sinks.Partition{Topic: t.Topic, Number: p}, key, value, flags, headers...)
}

func (w *Writer) value(c *Change, before, after []any) []byte {
	w.tb.Helper()
	v := schemas.AppendFrame(nil, c.Table.valueID)
	for _, row := range [][]any{before, after} {
		if row == nil {
			v = schemas.AppendUnion(v, schemas.EnvelopeNull)
			continue
		}
		v = schemas.AppendUnion(v, schemas.EnvelopeRow)
		for i := range c.Table.Columns {
			v = w.column(v, &c.Table.Columns[i], row[i])
		}
	}
	v = w.source.Append(v, schemas.NewSourceTable(c.Table.Namespace, c.Table.Name), w.order+w.row)
	return schemas.AppendEnvelopeTail(v, c.Op, time.Now().UnixMicro())
}

// put numbers a record and adds it to its partition's batch.
func (w *Writer) put(p sinks.Partition, key, value []byte, flags byte, headers ...stream.RecordHeader) {
	w.tb.Helper()
	w.row++
	w.last[p] = w.row
	w.append(p, key, value, nil, flags, headers...)
}

func (w *Writer) append(p sinks.Partition, key, value, parts []byte, flags byte, headers ...stream.RecordHeader) {
	w.tb.Helper()
	b := w.open[p]
	if b == nil {
		b = new(stream.Batch)
		w.open[p] = b
	}
	w.n[p]++
	mark := stream.AppendMark(nil, stream.Mark{Flags: flags, Place: stream.Place{Epoch: 1, Pos: w.order, Row: w.row}, N: w.n[p]})
	headers = append([]stream.RecordHeader{{Key: stream.MarkKey, Value: append(mark, parts...)}}, headers...)
	if err := b.Append(time.Now().UnixMilli(), key, value, headers); err != nil {
		w.tb.Fatal(err)
	}
}

// End writes the END record of the open transaction.
func (w *Writer) End() {
	w.tb.Helper()
	var parts []stream.EndPart
	for p, row := range w.last {
		parts = append(parts, stream.EndPart{Topic: p.Topic, Partition: p.Number, Row: row})
	}
	w.row++
	id := "tx"
	key := schemas.AppendTransactionKey(schemas.AppendFrame(nil, w.endKey), id)
	value := schemas.AppendTransactionEnd(schemas.AppendFrame(nil, w.endValue), id, nil, time.Now().UnixMilli())
	w.append(w.end, key, value, stream.AppendEndParts(nil, parts), stream.FlagEnd)
}

// Flush sends what was written; it can be read when Flush returns.
func (w *Writer) Flush() {
	w.tb.Helper()
	var out []*stream.Outgoing
	for p, b := range w.open {
		if err := b.Seal(stream.LZ4, false); err != nil {
			w.tb.Fatal(err)
		}
		out = append(out, &stream.Outgoing{Topic: p.Topic, Partition: p.Number, Batch: b})
	}
	clear(w.open)
	if err := w.producer.Produce(w.ctx(), out); err != nil {
		w.tb.Fatal(err)
	}
}
