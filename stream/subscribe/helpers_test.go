package subscribe_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/embedded"
	"github.com/tailrace/tailrace/stream/subscribe"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// forEachBroker runs test against the embedded broker and Apache Kafka.
func forEachBroker(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("embedded", func(t *testing.T) {
		noLeaks(t)
		test(t, newWorld(t, startEmbedded(t), false))
	})
	t.Run("kafka", func(t *testing.T) {
		addr := testenv.SharedKafka(t)
		noLeaks(t)
		test(t, newWorld(t, addr, true))
	})
}

func startEmbedded(t testing.TB) string {
	t.Helper()
	b, err := embedded.Start(context.Background(), embedded.Config{Dir: t.TempDir(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b.Addr()
}

// noLeaks checks at the test's end that it has left no goroutine.
func noLeaks(t *testing.T) {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A world is a broker, a registry, and a capture that the test plays.
type world struct {
	tb            testing.TB
	addr          string
	client        *stream.Client
	registry      *registry.Client
	transactional bool
	prefix        string
	producer      *stream.Producer
	tables        map[string]*table
	n             map[stream.Partition]uint64
	open          map[stream.Partition]*stream.Batch
	epoch, order  uint64
	row           uint64
	touched       []stream.EndPart
	endKey        int32
	endValue      int32
	source        *schemas.SourceWriter
	now           int64 // of records, milliseconds
}

type table struct {
	*schemas.Derived
	keyID, valueID int32
	partitions     int32
	name           string
	old            bool // without the column note
}

func newWorld(tb testing.TB, addr string, transactional bool) *world {
	tb.Helper()
	client, err := stream.NewClient(stream.Config{Brokers: []string{addr}, Timeout: 20 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	reg, err := registry.NewClient(registry.ClientConfig{URL: registrytest.Start(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(reg.Close)
	w := &world{
		tb: tb, addr: addr, client: client, registry: reg, transactional: transactional, prefix: testenv.Unique("shop"),
		tables: make(map[string]*table), n: make(map[stream.Partition]uint64), open: make(map[stream.Partition]*stream.Batch),
		epoch: 1, order: 1000, now: 1_700_000_000_000,
	}
	cfg := stream.ProducerConfig{Timeout: 20 * time.Second}
	if transactional {
		cfg.TransactionalID = w.prefix
	}
	if w.producer, err = client.NewProducer(testContext(tb), cfg); err != nil {
		tb.Fatal(err)
	}
	w.source = schemas.NewSourceWriter(schemas.SourceConfig{Version: "test", Connector: "postgresql", Name: w.prefix, Database: "db"})
	key, value := schemas.TransactionSchemas()
	w.endKey, w.endValue = w.register(w.endTopic()+"-key", key), w.register(w.endTopic()+"-value", value)
	w.createTopic(w.endTopic(), 1, nil)
	return w
}

func (w *world) endTopic() string { return w.prefix + ".transaction" }

func (w *world) end() stream.Partition { return stream.Partition{Topic: w.endTopic()} }

func (w *world) register(subject, schema string) int32 {
	w.tb.Helper()
	id, err := w.registry.Register(testContext(w.tb), subject, schema)
	if err != nil {
		w.tb.Fatal(err)
	}
	return id
}

func (w *world) createTopic(name string, partitions int32, config map[string]string) {
	w.tb.Helper()
	if _, err := w.client.EnsureTopic(testContext(w.tb), stream.TopicSpec{Name: name, Partitions: partitions, Replication: 1, Config: config, Create: true}); err != nil {
		w.tb.Fatal(err)
	}
}

// columns are those of every table of the tests.
var columns = []schemas.Column{
	{Name: "id", Type: schemas.Type{Kind: schemas.Int64}},
	{Name: "name", Type: schemas.Type{Kind: schemas.String}, Nullable: true},
	{Name: "amount", Type: schemas.Type{Kind: schemas.Decimal, Precision: 10, Scale: 2}},
	{Name: "note", Type: schemas.Type{Kind: schemas.String}, Nullable: true},
}

// table makes a table, its topic and its schemas.
func (w *world) table(name string, partitions int32, config map[string]string) *table {
	w.tb.Helper()
	return w.tableOf(name, partitions, config, &schemas.Table{Namespace: "public", Name: name, Columns: columns, Key: []int{0}})
}

func (w *world) tableOf(name string, partitions int32, config map[string]string, s *schemas.Table) *table {
	w.tb.Helper()
	d, err := schemas.Derive(s, schemas.Naming{Prefix: w.prefix, Connector: "postgresql"})
	if err != nil {
		w.tb.Fatal(err)
	}
	t := &table{Derived: d, partitions: partitions, name: name, old: len(s.Columns) < len(columns)}
	t.keyID, t.valueID = w.register(d.Topic+"-key", d.KeySchema), w.register(d.Topic+"-value", d.ValueSchema)
	w.createTopic(d.Topic, partitions, config)
	w.tables[name] = t
	return t
}

func (w *world) partitions(tables ...*table) []subscribe.FeedPartition {
	var all []subscribe.FeedPartition
	for _, t := range tables {
		for i := range t.partitions {
			all = append(all, subscribe.FeedPartition{Partition: stream.Partition{Topic: t.Topic, Number: i}})
		}
	}
	return all
}

func (w *world) config() subscribe.Config {
	return subscribe.Config{Client: w.client, Registry: w.registry, MaxWait: 200 * time.Millisecond}
}

const toasted = "__debezium_unavailable_value"

// change is a row's change; note "-" is null.
type change struct {
	t     *table
	op    byte
	id    int64
	name  string
	note  string
	flags byte
}

func (c *change) partition() stream.Partition {
	return stream.Partition{Topic: c.t.Topic, Number: stream.PartitionOf(schemas.AppendLong(nil, c.id), c.t.partitions)}
}

// tx writes a transaction with its END and makes it durable.
func (w *world) tx(changes ...change) {
	w.tb.Helper()
	w.begin()
	w.write(changes...)
	w.writeEnd(0)
	w.commit()
}

func (w *world) begin() {
	w.order += 10
	w.row, w.touched = 0, nil
	w.source.SetTransaction(schemas.SourceTx{ID: w.order, CommitMicros: w.now * 1000})
}

func (w *world) write(changes ...change) {
	w.tb.Helper()
	for i := range changes {
		c := &changes[i]
		if c.op == 't' {
			for p := range c.t.partitions {
				w.put(stream.Partition{Topic: c.t.Topic, Number: p}, nil, w.value(c), c.flags, nil)
			}
			continue
		}
		key := schemas.AppendLong(schemas.AppendFrame(nil, c.t.keyID), c.id)
		w.put(c.partition(), key, w.value(c), c.flags, nil)
		if c.op == 'd' {
			w.put(c.partition(), key, nil, c.flags, nil)
		}
	}
}

func (w *world) value(c *change) []byte {
	v := schemas.AppendFrame(nil, c.t.valueID)
	if c.op == 'd' {
		v = schemas.AppendUnion(w.rowOf(v, c), schemas.EnvelopeNull)
	} else if v = schemas.AppendUnion(v, schemas.EnvelopeNull); c.op == 't' {
		v = schemas.AppendUnion(v, schemas.EnvelopeNull)
	} else {
		v = w.rowOf(v, c)
	}
	v = w.source.Append(v, schemas.NewSourceTable("public", c.t.name), w.order+w.row)
	return schemas.AppendEnvelopeTail(v, c.op, w.now*1000+1)
}

func (w *world) rowOf(v []byte, c *change) []byte {
	v = schemas.AppendUnion(v, schemas.EnvelopeRow)
	v = schemas.AppendLong(v, c.id)
	v = schemas.AppendString(schemas.AppendUnion(v, 1), c.name)
	v, err := schemas.AppendDecimal(v, []byte(fmt.Sprintf("%d.50", c.id)), 2)
	if err != nil {
		w.tb.Fatal(err)
	}
	switch {
	case c.t.old:
		return v
	case c.note == "-":
		return schemas.AppendUnion(v, 0)
	}
	return schemas.AppendString(schemas.AppendUnion(v, 1), c.note)
}

func (w *world) put(p stream.Partition, key, value []byte, flags byte, parts []stream.EndPart) {
	w.tb.Helper()
	w.row++
	w.n[p]++
	mark := stream.AppendMark(nil, stream.Mark{Flags: flags, Place: stream.Place{Epoch: w.epoch, Pos: w.order, Row: w.row}, N: w.n[p]})
	if flags&stream.FlagEnd != 0 {
		mark = stream.AppendEndParts(mark, parts)
	} else {
		w.touch(p)
	}
	b := w.open[p]
	if b == nil {
		b = new(stream.Batch)
		w.open[p] = b
	}
	if err := b.Append(w.now, key, value, []stream.RecordHeader{{Key: stream.MarkKey, Value: mark}}); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) touch(p stream.Partition) {
	for i := range w.touched {
		if w.touched[i].Topic == p.Topic && w.touched[i].Partition == p.Number {
			w.touched[i].Row = w.row
			return
		}
	}
	w.touched = append(w.touched, stream.EndPart{Topic: p.Topic, Partition: p.Number, Row: w.row})
}

func (w *world) writeEnd(flags byte) {
	id := fmt.Sprintf("%d:%d", w.order, w.order)
	key := schemas.AppendTransactionKey(schemas.AppendFrame(nil, w.endKey), id)
	value := schemas.AppendTransactionEnd(schemas.AppendFrame(nil, w.endValue), id, nil, w.now)
	w.put(w.end(), key, value, flags|stream.FlagEnd, w.touched)
}

// flush makes what was written durable; on Apache Kafka the transaction stays
// open.
func (w *world) flush() {
	w.tb.Helper()
	var out []*stream.Outgoing
	for p, b := range w.open {
		if err := b.Seal(stream.LZ4, w.producer.Transactional()); err != nil {
			w.tb.Fatal(err)
		}
		out = append(out, &stream.Outgoing{Topic: p.Topic, Partition: p.Number, Batch: b})
	}
	clear(w.open)
	if err := w.producer.Produce(testContext(w.tb), out); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) commit() {
	w.tb.Helper()
	w.flush()
	if err := w.producer.End(testContext(w.tb), true); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) abort() {
	w.tb.Helper()
	w.flush()
	if err := w.producer.End(testContext(w.tb), false); err != nil {
		w.tb.Fatal(err)
	}
}
