package capture

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/stream"
)

// Compaction has taken the last records of a partition: a delete and its tombstone. That
// is no loss; numbers go on from the state.
func TestStartAfterCompaction(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	c := dial(t, k.ListenAddrs())
	log := newFakeLog()
	log.add(fakeRow{table: "t0", key: 2, op: 'c', text: "a"}, fakeRow{table: "t0", key: 1, op: 'c', text: "a"})
	log.add(fakeRow{table: "t0", key: 2, op: 'd'})
	cfg := c.config(log, true)
	cfg.Topics.Partitions = 1
	cfg.Topics.Config = map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "0"}
	runUntil(t, cfg, log)
	k.Compact()
	id := PartitionID{"p.public.t0", 0}
	if left := c.records(t)[id]; len(left) != 1 {
		t.Fatalf("compaction left %d records", len(left))
	}
	log.add(fakeRow{table: "t0", key: 3, op: 'c', text: "a"})
	runUntil(t, cfg, log)
	left := c.records(t)[id]
	if last := left[len(left)-1].mark.N; last != 5 {
		t.Errorf("n is %d after 4 records and one", last)
	}
}

// The embedded broker's compaction writes what is left again, behind the end.
func TestTailAfterEmbeddedCompaction(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		if transactional {
			return
		}
		id := PartitionID{"p.public.t0", 0}
		if _, err := c.client.EnsureTopic(t.Context(), stream.TopicSpec{Name: id.Topic, Partitions: 1, Create: true}); err != nil {
			t.Fatal(err)
		}
		mark := stream.Mark{Place: stream.Place{Epoch: 1, Pos: 100, Row: 1}, N: 1}
		for range 2 {
			var b stream.Batch
			if err := b.Append(1, []byte("framed"), []byte("v"), []stream.RecordHeader{{Key: stream.MarkKey, Value: stream.AppendMark(nil, mark)}}); err != nil {
				t.Fatal(err)
			}
			produce(t, c, id.Topic, &b)
		}
		deleteRecords(t, c, id, 1)
		cfg := c.config(newFakeLog(), transactional)
		rec := partitionState{G: 5, N: 3, Place: stream.Place{Epoch: 1, Pos: 200, Row: 2}, Before: 1, BeforePlace: mark.Place}
		got, err := readTail(t.Context(), &cfg, id, rec)
		if err != nil || got.n != rec.N || got.place != rec.Place || got.unseen != 0 {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// The state tells of a record that stands there aborted: the commit was torn, and what it
// held before is the tail, also where compaction has taken that.
func TestTailOfAbortedRecord(t *testing.T) {
	c := newCluster(t)
	id := PartitionID{"p.public.t0", 0}
	if _, err := c.client.EnsureTopic(t.Context(), stream.TopicSpec{Name: id.Topic, Partitions: 1, Create: true}); err != nil {
		t.Fatal(err)
	}
	prod, err := c.client.NewProducer(t.Context(), stream.ProducerConfig{TransactionalID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 2; n++ {
		var b stream.Batch
		mark := stream.Mark{Place: stream.Place{Epoch: 1, Pos: 100 * n, Row: 1}, N: n}
		if err := b.Append(1, []byte("framed"), []byte("v"), []stream.RecordHeader{{Key: stream.MarkKey, Value: stream.AppendMark(nil, mark)}}); err != nil {
			t.Fatal(err)
		}
		if err := b.Seal(stream.None, true); err != nil {
			t.Fatal(err)
		}
		if err := prod.Produce(t.Context(), []*stream.Outgoing{{Topic: id.Topic, Batch: &b}}); err != nil {
			t.Fatal(err)
		}
		if err := prod.End(t.Context(), n == 1); err != nil {
			t.Fatal(err)
		}
	}
	cfg := c.config(newFakeLog(), true)
	rec := partitionState{G: 5, N: 2, Place: stream.Place{Epoch: 1, Pos: 200, Row: 1}, Before: 1, BeforePlace: stream.Place{Epoch: 1, Pos: 100, Row: 1}, Offset: 2}
	got, err := readTail(t.Context(), &cfg, id, rec)
	if err != nil || got.n != 1 || got.place != rec.BeforePlace || !got.known {
		t.Errorf("got %+v, %v", got, err)
	}
	deleteRecords(t, c, id, 2) // as if compaction had taken what stood before it
	got, err = readTail(t.Context(), &cfg, id, rec)
	if err != nil || got.n != 1 || got.place != rec.BeforePlace || got.known {
		t.Errorf("got %+v, %v", got, err)
	}
}
