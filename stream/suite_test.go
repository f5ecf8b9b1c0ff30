package stream_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
)

func TestProduceAndRead(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 3, nil)
		p := newProducer(t, c, stream.ProducerConfig{})
		var want []string
		for i, codec := range []stream.Codec{stream.None, stream.Gzip, stream.Snappy, stream.LZ4, stream.Zstd} {
			var values []string
			for j := range 100 {
				values = append(values, fmt.Sprintf("value %d %d %s", i, j, strings.Repeat("x", 50)))
			}
			first := packedBatch(t, topic, 1, codec, false, values[:60]...)
			second := packedBatch(t, topic, 1, codec, false, values[60:]...)
			other := packedBatch(t, topic, 2, codec, false, values[0])
			produce(t, p, first, second, other)
			if first.Offset != int64(len(want)) || second.Offset != int64(len(want)+60) || other.Offset != int64(i) {
				t.Errorf("%v: offsets are %d, %d, %d", codec, first.Offset, second.Offset, other.Offset)
			}
			want = append(want, values...)
		}
		wantValues(t, c, topic, 0)
		wantValues(t, c, topic, 1, want...)
		if o, err := c.Offsets(testContext(t), topic, 1); err != nil || o != (stream.Offsets{Start: 0, LastStable: 500, End: 500}) {
			t.Errorf("offsets are %+v, %v", o, err)
		}
	})
}

func TestTopics(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		ctx := testContext(t)
		spec := stream.TopicSpec{Name: testenv.Unique("spec"), Partitions: 4, Config: map[string]string{"cleanup.policy": "compact", "retention.ms": "1000"}}
		_, err := c.EnsureTopic(ctx, spec)
		wantError(t, err, stream.ErrNoTopic, true, "kafka-topics.sh --bootstrap-server "+b.addr+" --create --topic "+spec.Name+
			" --partitions 4 --config cleanup.policy=compact --config retention.ms=1000")
		if _, err := c.Topic(ctx, spec.Name); !errors.Is(err, stream.ErrNoTopic) {
			t.Errorf("look for a topic that is not there: %v", err)
		}
		spec.Create = true
		info, err := c.EnsureTopic(ctx, spec)
		if err != nil || !info.Created || info.Partitions != 4 || info.Replication < 1 || info.Name != spec.Name {
			t.Fatalf("created: %+v, %v", info, err)
		}
		again, err := c.EnsureTopic(ctx, stream.TopicSpec{Name: spec.Name, Partitions: 9, Create: true})
		if err != nil || again.Created || again.Partitions != 4 {
			t.Errorf("there already: %+v, %v", again, err)
		}
		all, err := c.Topics(ctx)
		if err != nil || !slices.ContainsFunc(all, func(i stream.TopicInfo) bool { return i.Name == spec.Name && i.Partitions == 4 }) {
			t.Errorf("all topics: %v, %v", all, err)
		}
		if err := c.DeleteTopic(ctx, spec.Name); err != nil {
			t.Fatal(err)
		}
		if err := c.DeleteTopic(ctx, spec.Name); err != nil {
			t.Errorf("delete it again: %v", err)
		}
		if b.name == "kafka" { // kfake takes any name
			_, err = c.EnsureTopic(ctx, stream.TopicSpec{Name: "no/such name", Create: true})
			wantError(t, err, err, true, "letters, digits")
		}
	})
}

func TestTopicThatCannotBeCreated(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		_, err := c.EnsureTopic(testContext(t), stream.TopicSpec{Name: testenv.Unique("wide"), Partitions: 1, Replication: 99, Create: true})
		var e *stream.Error
		if !errors.As(err, &e) || !e.Fatal() || !e.Environment() || !strings.Contains(e.Hint(), "--replication-factor 99") {
			t.Errorf("99 replicas: %v", err)
		}
	})
}

func TestUnknownTopic(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClientOf(t, stream.Config{Brokers: []string{b.addr}, Timeout: 100 * time.Millisecond})
		topic := testenv.Unique("nowhere")
		p := newProducer(t, c, stream.ProducerConfig{Timeout: 100 * time.Millisecond})
		err := p.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, false, "a")})
		wantError(t, err, stream.ErrNoTopic, true, "create")
		if !strings.Contains(err.Error(), topic) {
			t.Errorf("%v does not name the topic", err)
		}
		_, err = c.Fetch(testContext(t), topic, 0, 0, stream.FetchOptions{})
		wantError(t, err, stream.ErrNoTopic, true, "create")
		_, err = c.Tail(testContext(t), topic, 0, 0)
		wantError(t, err, stream.ErrNoTopic, true, "create")
		_, err = c.LoadState(testContext(t), topic)
		wantError(t, err, stream.ErrNoTopic, true, "create")
	})
}

func TestRecordTooLarge(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 1, map[string]string{"max.message.bytes": "1000"})
		p := newProducer(t, c, stream.ProducerConfig{})
		produce(t, p, batchOf(t, topic, 0, false, "small"))
		err := p.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, false, strings.Repeat("x", 2000))})
		wantError(t, err, stream.ErrRecordTooLarge, true, "max.message.bytes of the topic "+topic)
		if !strings.Contains(err.Error(), topic) {
			t.Errorf("%v does not name the topic", err)
		}
		again := p.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, false, "next")})
		if !errors.Is(again, stream.ErrRecordTooLarge) {
			t.Errorf("the next produce: %v", again)
		}
		wantValues(t, c, topic, 0, "small")
	})
}

// TestLostAnswers loses the answer to each kind of request once; what the
// broker did the first time must not be done twice.
func TestLostAnswers(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		w := newWire(c)
		const produceKey, fetchKey, listKey, metadataKey, initKey = 0, 1, 2, 3, 22
		w.loseAnswers(initKey, 1)
		p := newProducer(t, c, stream.ProducerConfig{})
		topic := newTopic(t, c, 1, nil)
		var want []string
		for i := range 8 {
			w.loseAnswers(produceKey, 1)
			out := batchOf(t, topic, 0, false, fmt.Sprint(i, "a"), fmt.Sprint(i, "b"))
			produce(t, p, out)
			if out.Offset != int64(2*i) {
				t.Errorf("batch %d: offset is %d", i, out.Offset)
			}
			want = append(want, fmt.Sprint(i, "a"), fmt.Sprint(i, "b"))
		}
		w.loseAnswers(fetchKey, 2)
		w.loseAnswers(listKey, 2)
		w.loseAnswers(metadataKey, 1)
		wantValues(t, c, topic, 0, want...)
		for key, n := range map[int16]int{produceKey: 8, fetchKey: 2, listKey: 2, initKey: 1} {
			if got := w.lostAnswers(key); got != n {
				t.Errorf("%d answers of key %d were lost, want %d", got, key, n)
			}
		}
	})
}

func TestSequenceWraps(t *testing.T) {
	for _, c := range []struct{ from, records, next int32 }{
		{0, 1, 1}, {math.MaxInt32 - 1, 1, math.MaxInt32}, {math.MaxInt32, 1, 0}, {math.MaxInt32, 5, 4}, {math.MaxInt32 - 2, 4, 1},
	} {
		if got := stream.NextSequence(c.from, c.records); got != c.next {
			t.Errorf("%d records after %d: %d, want %d", c.records, c.from, got, c.next)
		}
	}
	// A broker takes any sequence from a producer that it does not know in a
	// partition that has held records.
	t.Run("kafka", func(t *testing.T) {
		b := broker{addr: testenv.SharedKafka(t)}
		for _, id := range []string{"", testenv.Unique("wrap")} {
			c := newClient(t, b.addr)
			topic := newTopic(t, c, 1, nil)
			produce(t, newProducer(t, c, stream.ProducerConfig{}), batchOf(t, topic, 0, false, "before"))
			p := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
			p.SetSequence(topic, 0, math.MaxInt32-3)
			want := []string{"before"}
			for i := range 8 {
				produce(t, p, batchOf(t, topic, 0, id != "", fmt.Sprint(i, "a"), fmt.Sprint(i, "b"), fmt.Sprint(i, "c")))
				want = append(want, fmt.Sprint(i, "a"), fmt.Sprint(i, "b"), fmt.Sprint(i, "c"))
			}
			end(t, p, true)
			settle(t, c, topic, 0)
			wantValues(t, c, topic, 0, want...)
		}
	})
	// kfake counts modulo 2^31-1, so an idempotent producer begins anew before.
	t.Run("embedded", func(t *testing.T) {
		c := newClient(t, startEmbedded(t, t.TempDir(), "").Addr())
		topic := newTopic(t, c, 1, nil)
		produce(t, newProducer(t, c, stream.ProducerConfig{}), batchOf(t, topic, 0, false, "before"))
		p := newProducer(t, c, stream.ProducerConfig{})
		p.SetSequence(topic, 0, math.MaxInt32-3)
		want := []string{"before"}
		for i := range 8 {
			produce(t, p, batchOf(t, topic, 0, false, fmt.Sprint(i)))
			want = append(want, fmt.Sprint(i))
		}
		wantValues(t, c, topic, 0, want...)
	})
}

func TestOffsetsAreNeverReset(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 1, nil)
		produce(t, newProducer(t, c, stream.ProducerConfig{}), batchOf(t, topic, 0, false, "a", "b", "c"))
		for _, offset := range []int64{4, 1000} {
			r := c.NewReader(topic, 0, offset, stream.FetchOptions{})
			err := r.Read(testContext(t), func(*stream.Record) error { return errors.New("nothing is there") })
			wantError(t, err, stream.ErrOffsetOutOfRange, true, "created again")
			var e *stream.OffsetError
			if !errors.As(err, &e) || e.Offset != offset || e.Start != 0 || e.End != 3 || r.Offset() != offset {
				t.Errorf("read from %d: %+v, then at %d", offset, e, r.Offset())
			}
			_, err = c.ReadToEnd(testContext(t), topic, 0, offset, func(*stream.Record) error { return nil })
			wantError(t, err, stream.ErrOffsetOutOfRange, true, "created again")
		}
		if next, err := c.ReadToEnd(testContext(t), topic, 0, 3, nil); next != 3 || err != nil {
			t.Errorf("read from the end: %d, %v", next, err)
		}
	})
}

func TestReaderGoesOn(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 1, nil)
		p := newProducer(t, c, stream.ProducerConfig{})
		produce(t, p, batchOf(t, topic, 0, false, "a", "b", "c"))
		r := c.NewReader(topic, 0, 1, stream.FetchOptions{MaxWait: 50 * time.Millisecond})
		stop := errors.New("stop")
		var got []string
		take := func(rec *stream.Record) error {
			if string(rec.Value) == "c" && !slices.Contains(got, "stopped") {
				got = append(got, "stopped")
				return stop
			}
			got = append(got, string(rec.Value))
			return nil
		}
		if err := r.Read(testContext(t), take); err != stop {
			t.Fatalf("read: %v", err)
		}
		if r.Offset() != 2 {
			t.Errorf("stopped at %d", r.Offset())
		}
		produce(t, p, batchOf(t, topic, 0, false, "d"))
		for r.Offset() < 4 {
			if err := r.Read(testContext(t), take); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Read(testContext(t), take); err != nil || r.Offset() != 4 {
			t.Errorf("read at the end: at %d, %v", r.Offset(), err)
		}
		if want := []string{"b", "stopped", "c", "d"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if r.LastStable() != 4 || r.HighWatermark() != 4 {
			t.Errorf("ends are %d, %d", r.LastStable(), r.HighWatermark())
		}
	})
}

func TestTail(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		ctx := testContext(t)
		topic := newTopic(t, c, 1, nil)
		tail := func(from int64) stream.Tail {
			t.Helper()
			got, err := c.Tail(ctx, topic, 0, from)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := tail(0); got.Found || got.Start != 0 || got.End != 0 || got.ForeignOffset != -1 {
			t.Errorf("of nothing: %+v", got)
		}
		p := newProducer(t, c, stream.ProducerConfig{})
		marked := func(n uint64, key, value []byte) *stream.Outgoing {
			mark := stream.Mark{Place: stream.Place{Epoch: 1, Pos: 500 + n, Row: 3}, N: n}
			batch := new(stream.Batch)
			header := []stream.RecordHeader{{Key: stream.MarkKey, Value: stream.AppendMark(nil, mark)}}
			if err := errors.Join(batch.Append(77, key, value, header), batch.Seal(stream.LZ4, false)); err != nil {
				t.Fatal(err)
			}
			return &stream.Outgoing{Topic: topic, Batch: batch}
		}
		produce(t, p, marked(1, []byte("k1"), []byte("v1")), marked(2, []byte("k2"), nil), batchOf(t, topic, 0, false, "foreign"))
		got := tail(0)
		if !got.Found || got.Offset != 1 || got.Timestamp != 77 || got.Mark.N != 2 || got.Mark.Pos != 502 || string(got.Key) != "k2" || got.Value != nil {
			t.Errorf("tail: %+v", got)
		}
		if got.Records != 3 || got.Foreign != 1 || got.ForeignOffset != 2 || got.End != 3 {
			t.Errorf("tail counts: %+v", got)
		}
		if got := tail(2); got.Found || got.Foreign != 1 {
			t.Errorf("tail from the foreign record: %+v", got)
		}
		if got := tail(3); got.Found || got.Records != 0 || got.End != 3 {
			t.Errorf("tail from the end: %+v", got)
		}
		if got := tail(4); got.Found || got.End != 3 {
			t.Errorf("tail from after the end: %+v", got)
		}
		broken := new(stream.Batch)
		if err := errors.Join(broken.Append(1, nil, nil, []stream.RecordHeader{{Key: stream.MarkKey, Value: []byte{9}}}), broken.Seal(stream.None, false)); err != nil {
			t.Fatal(err)
		}
		produce(t, p, &stream.Outgoing{Topic: topic, Batch: broken})
		if _, err := c.Tail(ctx, topic, 0, 0); err == nil || !strings.Contains(err.Error(), "offset 3") {
			t.Errorf("a broken header: %v", err)
		}
	})
}

func TestLoadState(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 2, map[string]string{"cleanup.policy": "compact"})
		p := newProducer(t, c, stream.ProducerConfig{})
		write := func(partition int32, key string, value []byte) *stream.Outgoing {
			batch := new(stream.Batch)
			if err := errors.Join(batch.Append(1, []byte(key), value, nil), batch.Seal(stream.None, false)); err != nil {
				t.Fatal(err)
			}
			return &stream.Outgoing{Topic: topic, Partition: partition, Batch: batch}
		}
		produce(t, p, write(0, "a", []byte("1")), write(0, "b", []byte("2")), write(0, "a", []byte("3")), write(1, "c", []byte{}),
			write(1, "d", []byte("4")), write(1, "d", nil))
		state, err := c.LoadState(testContext(t), topic)
		if err != nil || len(state) != 3 || string(state["a"]) != "3" || string(state["b"]) != "2" || state["c"] == nil {
			t.Errorf("state is %q, %v", state, err)
		}
	})
}

func TestTransactions(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 3, nil)
		p := newProducer(t, c, stream.ProducerConfig{TransactionalID: testenv.Unique("txn")})
		end(t, p, true) // nothing was produced: nothing happens
		var want [3][]string
		for i := range 30 {
			commit := i%3 != 1
			var out []*stream.Outgoing
			for part := range int32(3) {
				if (i+int(part))%2 == 0 {
					continue
				}
				v := fmt.Sprint(i, " ", part)
				out = append(out, batchOf(t, topic, part, true, v+"a", v+"b"), batchOf(t, topic, part, true, v+"c"))
				if commit {
					want[part] = append(want[part], v+"a", v+"b", v+"c")
				}
			}
			produce(t, p, out...)
			if p.TransactionAge() <= 0 {
				t.Error("no transaction is open")
			}
			end(t, p, commit)
			if p.TransactionAge() != 0 {
				t.Error("a transaction is still open")
			}
		}
		for part := range int32(3) {
			settle(t, c, topic, part)
			wantValues(t, c, topic, part, want[part]...)
		}
		count := 0
		r := c.NewReader(topic, 0, 0, stream.FetchOptions{ReadUncommitted: true})
		for o, _ := c.Offsets(testContext(t), topic, 0); r.Offset() < o.End; {
			if err := r.Read(testContext(t), func(*stream.Record) error { count++; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if count != 45 {
			t.Errorf("read uncommitted: %d records, want 45", count)
		}
	})
}

// TestAbortedFilter reads many short transactions, half of them aborted, in
// fetches that cut everywhere.
func TestAbortedFilter(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 1, nil)
		p := newProducer(t, c, stream.ProducerConfig{TransactionalID: testenv.Unique("filter")})
		var want []string
		for i := range 60 {
			v := fmt.Sprint(i)
			produce(t, p, batchOf(t, topic, 0, true, v+"a", v+"b"), batchOf(t, topic, 0, true, v+"c"))
			end(t, p, i%2 == 0)
			if i%2 == 0 {
				want = append(want, v+"a", v+"b", v+"c")
			}
		}
		for _, size := range []int32{1, 150, 1000, 1 << 20} {
			o := settle(t, c, topic, 0)
			var got []string
			r := c.NewReader(topic, 0, 0, stream.FetchOptions{MaxBytes: size})
			for r.Offset() < o.End {
				if err := r.Read(testContext(t), func(rec *stream.Record) error { got = append(got, string(rec.Value)); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("fetches of %d bytes: %s, want %s", size, short(got), short(want))
			}
		}
	})
}

func TestOpenTransactionHidesWhatFollows(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 1, nil)
		id := testenv.Unique("open")
		p := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		produce(t, p, batchOf(t, topic, 0, true, "open"))
		produce(t, newProducer(t, c, stream.ProducerConfig{}), batchOf(t, topic, 0, false, "behind"))
		wantValues(t, c, topic, 0)
		if o, err := c.Offsets(testContext(t), topic, 0); err != nil || o != (stream.Offsets{LastStable: 0, End: 2}) {
			t.Errorf("offsets: %+v, %v", o, err)
		}
		ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
		defer cancel()
		_, err := c.WaitStable(ctx, topic, 0)
		wantError(t, err, stream.ErrHanging, true, "find-hanging")

		// A new producer aborts what the one before left open.
		next := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		if o := settle(t, c, topic, 0); o.LastStable != o.End || o.End != 3 {
			t.Errorf("stable: %+v", o)
		}
		wantValues(t, c, topic, 0, "behind")
		produce(t, next, batchOf(t, topic, 0, true, "next"))
		end(t, next, true)
		settle(t, c, topic, 0)
		wantValues(t, c, topic, 0, "behind", "next")
	})
}

func TestFencing(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 2, nil)
		id := testenv.Unique("fence")
		fenced := func(err error) {
			t.Helper()
			wantError(t, err, stream.ErrFenced, true, "same transactional id")
		}
		// Fenced before anything was begun: at the first request.
		first := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		second := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		fenced(first.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, true, "zombie")}))
		fenced(first.End(testContext(t), true))
		// Fenced inside a transaction: at its end, or when it takes in another partition.
		produce(t, second, batchOf(t, topic, 0, true, "aborted"))
		third := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		fenced(second.End(testContext(t), true))
		produce(t, third, batchOf(t, topic, 0, true, "aborted too"))
		fourth := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		fenced(third.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 1, true, "zombie")}))
		produce(t, fourth, batchOf(t, topic, 0, true, "right"))
		end(t, fourth, true)
		settle(t, c, topic, 0)
		wantValues(t, c, topic, 0, "right")
		wantValues(t, c, topic, 1)
	})
}

// TestZombieProduces has a fenced producer write into a partition that its
// transaction knows already. Apache Kafka says that it is fenced; kfake says
// that there is no transaction.
func TestZombieProduces(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 1, nil)
		id := testenv.Unique("zombie")
		zombie := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		produce(t, zombie, batchOf(t, topic, 0, true, "aborted"))
		p := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		err := zombie.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, true, "zombie")})
		if err == nil || b.name == "kafka" && !errors.Is(err, stream.ErrFenced) {
			t.Errorf("zombie: %v", err)
		}
		t.Logf("zombie: %v", err)
		produce(t, p, batchOf(t, topic, 0, true, "right"))
		end(t, p, true)
		settle(t, c, topic, 0)
		wantValues(t, c, topic, 0, "right")
	})
}

func TestEndIsNotAnswered(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		const endTxnKey, addPartitionsKey, findCoordinatorKey = 26, 24, 10
		c := newClient(t, b.addr)
		w := newWire(c)
		topic := newTopic(t, c, 1, nil)
		id := testenv.Unique("unknown")
		w.loseAnswers(findCoordinatorKey, 1)
		p := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		w.loseAnswers(addPartitionsKey, 2)
		produce(t, p, batchOf(t, topic, 0, true, "a"))
		w.loseAnswers(endTxnKey, 1)
		err := p.End(testContext(t), true)
		wantError(t, err, stream.ErrOutcomeUnknown, false, "")
		if err := p.Produce(testContext(t), []*stream.Outgoing{batchOf(t, topic, 0, true, "b")}); !errors.Is(err, stream.ErrOutcomeUnknown) {
			t.Errorf("produce after it: %v", err)
		}
		// It was committed in truth, and a new producer lets that be.
		next := newProducer(t, c, stream.ProducerConfig{TransactionalID: id})
		if err := next.Settle(testContext(t), []stream.Partition{{Topic: topic, Number: 0}}); err != nil {
			t.Error(err)
		}
		wantValues(t, c, topic, 0, "a")
		if w.lostAnswers(endTxnKey) != 1 || w.lostAnswers(addPartitionsKey) != 2 || w.lostAnswers(findCoordinatorKey) != 1 {
			t.Error("answers were not lost as they should")
		}
	})
}

func TestTransactionTimesOut(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 2, nil)
		p := newProducer(t, c, stream.ProducerConfig{TransactionalID: testenv.Unique("slow"), TransactionTimeout: time.Second})
		produce(t, p, batchOf(t, topic, 0, true, "late"))
		settle(t, c, topic, 0) // the broker aborts it
		err := p.End(testContext(t), true)
		wantError(t, err, stream.ErrTransactionTimeout, false, "longer than its timeout")
		wantValues(t, c, topic, 0)
	})
}

func TestTransactionTimeoutTooLong(t *testing.T) {
	forEachTransactional(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		_, err := c.NewProducer(testContext(t), stream.ProducerConfig{TransactionalID: testenv.Unique("long"), TransactionTimeout: 24 * time.Hour})
		wantError(t, err, err, true, "transaction.max.timeout.ms")
	})
}
