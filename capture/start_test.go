package capture

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

// deleteRecords does what retention does: it removes all records before offset.
func deleteRecords(t *testing.T, c *testCluster, id PartitionID, offset int64) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.addrs...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 5000
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic = id.Topic
	part := kmsg.NewDeleteRecordsRequestTopicPartition()
	part.Partition, part.Offset = id.Number, offset
	topic.Partitions = append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("delete records: error %d", code)
	}
}

// highest returns the last n of each partition.
func highest(all map[PartitionID][]got) map[PartitionID]uint64 {
	n := make(map[PartitionID]uint64)
	for id, recs := range all {
		n[id] = recs[len(recs)-1].mark.N
	}
	return n
}

// Retention has taken every record of the topics: numbers go on from the state.
func TestStartAfterRetention(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		log := newFakeLog()
		log.addRandom(rand.New(rand.NewPCG(11, 1)), 60)
		cfg := c.config(log, transactional)
		runUntil(t, cfg, log)
		before := highest(c.records(t))
		for id := range before {
			at, err := c.client.Offsets(t.Context(), id.Topic, id.Number)
			if err != nil {
				t.Fatal(err)
			}
			deleteRecords(t, c, id, at.End)
		}
		log.addRandom(rand.New(rand.NewPCG(11, 2)), 60)
		runUntil(t, cfg, log)
		for id, recs := range c.records(t) {
			if recs[0].mark.N != before[id]+1 {
				t.Errorf("%s goes on with n = %d after %d", id, recs[0].mark.N, before[id])
			}
		}
	})
}

// rewind puts the state back to where it was when first was taken, as if the cuts since
// had never been written.
func rewind(t *testing.T, c *testCluster, cfg *Config, first map[string][]byte, log *fakeLog) {
	t.Helper()
	now, err := c.client.LoadState(t.Context(), cfg.StateTopic())
	if err != nil {
		t.Fatal(err)
	}
	var b stream.Batch
	for key := range now {
		if err := b.Append(1, []byte(key), first[key], nil); err != nil {
			t.Fatal(err)
		}
	}
	produce(t, c, cfg.StateTopic(), &b)
	s, err := parseState(first)
	if err != nil {
		t.Fatal(err)
	}
	log.confirmed = s.newest().Position
}

// Without transactions, records may be there that no state tells of. If retention takes
// them before the next start, they are counted, and left out of the replay.
func TestStartAfterRetentionOfUnseenRecords(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		if transactional {
			return // there no record comes without its state
		}
		log := newFakeLog()
		log.addRandom(rand.New(rand.NewPCG(12, 1)), 60)
		cfg := c.config(log, transactional)
		runUntil(t, cfg, log)
		first, err := c.client.LoadState(t.Context(), cfg.StateTopic())
		if err != nil {
			t.Fatal(err)
		}
		log.addRandom(rand.New(rand.NewPCG(12, 2)), 60)
		runUntil(t, cfg, log)
		c.check(t, log)
		before := highest(c.records(t))
		rewind(t, c, &cfg, first, log)
		for id, n := range before {
			deleteRecords(t, c, id, int64(n))
		}
		log.addRandom(rand.New(rand.NewPCG(12, 3)), 60)
		runUntil(t, cfg, log)
		total := 0
		for id, recs := range c.records(t) {
			if recs[0].mark.N != before[id]+1 {
				t.Errorf("%s goes on with n = %d after %d", id, recs[0].mark.N, before[id])
			}
			for _, r := range recs {
				if r.mark.Pos < log.txs[120].order.Pos {
					t.Errorf("%s: %v comes a second time", id, r.mark)
				}
			}
			total += len(recs)
		}
		if total == 0 {
			t.Error("nothing was written")
		}
	})
}

// A commit was torn: its state is there, and one of its partitions is not. The start goes
// back to the position before it, and what the other partitions hold is not written twice.
func TestStartAfterTornCommit(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		log := newFakeLog()
		log.addRandom(rand.New(rand.NewPCG(13, 1)), 40)
		cfg := c.config(log, transactional)
		runUntil(t, cfg, log)
		s := loadTestState(t, c, &cfg)
		newest := *s.newest()
		log.add(fakeRow{table: "t0", key: 1, op: 'c', text: "torn"})
		tx := log.txs[len(log.txs)-1]
		newest.G++
		newest.Position, newest.Order = tx.end, tx.order
		id := PartitionID{"p.public.t0", stream.PartitionOf(schemas.AppendLong(nil, 1), 3)}
		at, err := c.client.Offsets(t.Context(), id.Topic, id.Number)
		if err != nil {
			t.Fatal(err)
		}
		was := s.partitions[id]
		torn := partitionState{G: newest.G, N: was.N + 1, Place: stream.Place{Epoch: 1, Pos: tx.order.Pos, Row: 1},
			Before: was.N, BeforePlace: was.Place, Offset: at.End}
		slot := 0
		if s.positions[0] == s.newest() {
			slot = 1
		}
		var b stream.Batch
		for key, v := range map[string]any{positionKey(slot): newest, partitionKey(id): torn} {
			if err := b.Append(1, []byte(key), mustJSON(v), nil); err != nil {
				t.Fatal(err)
			}
		}
		produce(t, c, cfg.StateTopic(), &b)
		runUntil(t, cfg, log)
		c.check(t, log)
		if rec := loadTestState(t, c, &cfg).partitions[id]; rec.G <= torn.G || rec.N != torn.N {
			t.Errorf("the state still says %+v", rec)
		}
	})
}

// What the catalog says by now is not asked for a change that was, or may have been,
// written before; and it is asked for what comes after.
func TestTableVersions(t *testing.T) {
	c := newCluster(t)
	cfg := c.config(newFakeLog(), true)
	s := emptyState()
	s.positions[0] = &positionState{G: 1, Epoch: 1}
	r := newRoutes(&cfg, s, newProgress(s, start{from: *s.positions[0]}, nil))
	at := func(pos uint64) stream.Place { return stream.Place{Epoch: 1, Pos: pos, Row: 1} }
	described := 0
	table := fakeTable("t0", 0)
	v := &TableVersion{Namespace: "public", Name: "t0", Hash: "h", Describe: func(context.Context) (*schemas.Table, error) {
		described++
		return table, nil
	}}
	take := func(place, horizon stream.Place, wantFresh bool, wantDescribed int) tableState {
		t.Helper()
		got, fresh, err := r.version(t.Context(), v, place, horizon)
		if err != nil || fresh != wantFresh || described != wantDescribed {
			t.Fatalf("fresh %v, described %d times: %v", fresh, described, err)
		}
		if fresh {
			r.store(v, got)
		}
		return got
	}
	first := take(at(100), at(50), true, 1)
	take(at(150), at(50), false, 2) // sent again, nothing new
	table = &schemas.Table{Namespace: "public", Name: "t0", Key: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "v", Type: schemas.Type{Kind: schemas.String}, Default: schemas.Default{Kind: schemas.ValueDefault, Text: "x"}}}}
	second := take(at(200), at(50), true, 3)
	if !second.Table.Columns[1].Nullable {
		t.Error("the column is not nullable any more")
	}
	if second.ValueID == first.ValueID || second.KeyID != first.KeyID {
		t.Errorf("ids %+v, then %+v", first, second)
	}
	for place, want := range map[stream.Place]tableState{at(100): first, at(199): first, at(200): second, at(210): second} {
		if got := take(place, at(300), false, 3); got.ValueID != want.ValueID {
			t.Errorf("a replay at %v gets %d, want %d", place, got.ValueID, want.ValueID)
		}
	}
	take(at(301), at(300), false, 4) // after the replay the catalog counts again
	broken := errors.New("no catalog")
	v.Describe = func(context.Context) (*schemas.Table, error) { return nil, broken }
	if _, _, err := r.version(t.Context(), v, at(400), at(300)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// A replay writes no row under another key than it may stand under already; choices that
// leave keys alone, and other descriptions by the log, are no matter.
func TestKeyMasksOverReplay(t *testing.T) {
	c := newCluster(t)
	cfg := c.config(newFakeLog(), true)
	s := emptyState()
	s.positions[0] = &positionState{G: 1, Epoch: 1}
	r := newRoutes(&cfg, s, newProgress(s, start{from: *s.positions[0]}, nil))
	at := func(pos uint64) stream.Place { return stream.Place{Epoch: 1, Pos: pos, Row: 1} }
	for _, step := range []struct {
		name, hash, log, keys string
		place, horizon        uint64
		stops, fresh          bool
	}{
		{"the first", "clear", "one", "", 100, 50, false, true},
		{"the same again", "clear", "one", "", 150, 300, false, false},
		{"masked in a replay", "masked", "one", "k", 150, 300, true, false},
		{"another column masked in a replay", "other", "one", "", 160, 300, false, true},
		{"another table's description in a replay", "changed", "two", "k", 170, 300, false, true},
		{"masked after it", "masked", "one", "k", 310, 300, false, true},
		{"replayed as it was", "masked", "one", "k", 320, 400, false, false},
		{"no mask in a replay", "clear", "one", "", 330, 400, true, false},
		{"before the mask", "clear", "one", "", 305, 400, false, false},
		{"no mask after it", "clear", "one", "", 410, 400, false, true},
		{"replayed again", "clear", "one", "", 420, 500, false, false},
	} {
		v := &TableVersion{Namespace: "public", Name: "t0", Hash: step.hash, Log: step.log, Keys: step.keys,
			Describe: func(context.Context) (*schemas.Table, error) { return fakeTable("t0", 0), nil }}
		got, fresh, err := r.version(t.Context(), v, at(step.place), at(step.horizon))
		if IsFatal(err) != step.stops || fresh != step.fresh || step.stops && !strings.Contains(HintOf(err), "as they were") {
			t.Fatalf("%s: fresh %t, %v", step.name, fresh, err)
		}
		if fresh {
			r.store(v, got)
		}
	}
}

// Two tables whose names with their schemas read alike are two tables.
func TestTablesOfOneCollectionName(t *testing.T) {
	c := newCluster(t)
	p, _ := idlePipeline(t)
	p.cfg.Client, p.cfg.Registry = c.client, c.registry
	if err := p.Begin(&Tx{Pos: 100, ID: "1"}); err != nil {
		t.Fatal(err)
	}
	take := func(namespace, name string) error {
		v := &TableVersion{Namespace: namespace, Name: name, Hash: namespace, Describe: func(context.Context) (*schemas.Table, error) {
			table := fakeTable(name, 0)
			table.Namespace = namespace
			return table, nil
		}}
		_, err := p.Table(t.Context(), v)
		if err == nil {
			g := <-p.send.queue
			g.reset()
			p.send.empty <- g
		}
		return err
	}
	if err := take("a", "b.c"); err != nil {
		t.Fatal(err)
	}
	if err := take("a.b", "c"); !IsFatal(err) || HintOf(err) == "" {
		t.Fatalf("got %v", err)
	}
}

// A version is kept as long as a start may go back to where it held: what was read since is
// not durable yet.
func TestStoreKeepsWhatAReplayAsksFor(t *testing.T) {
	c := newCluster(t)
	p, r := idlePipeline(t)
	p.cfg.Client, p.cfg.Registry = c.client, c.registry
	old := func(pos uint64) tableState {
		return tableState{From: stream.Place{Epoch: 1, Pos: pos, Row: 1}, Table: fakeTable("t0", 0), ValueID: int32(pos)}
	}
	key := tableKey("public", "t0", "h")
	p.routes.tables[key] = []tableState{old(50), old(100)}
	p.send.queue <- new(group) // the sender is busy
	p.writeOne(t, r, 200)
	if err := p.Begin(&Tx{Pos: 300, ID: "1"}); err != nil {
		t.Fatal(err)
	}
	<-p.send.queue
	table := fakeTable("t0", 0)
	table.Columns = append(table.Columns, schemas.Column{Name: "w", Type: schemas.Type{Kind: schemas.String}, Nullable: true})
	v := &TableVersion{Namespace: "public", Name: "t0", Hash: "h", Describe: func(context.Context) (*schemas.Table, error) { return table, nil }}
	if _, err := p.Table(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if got, ok := held(p.routes.tables[key], stream.Place{Epoch: 1, Pos: 60, Row: 1}); !ok || got.ValueID != 50 {
		t.Errorf("a replay from the start finds %v, %v at 60", got.ValueID, ok)
	}
}

// morePartitions gives a topic more partitions.
func (c *testCluster) morePartitions(t *testing.T, topic string, count int32) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.addrs...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = 5000
	one := kmsg.NewCreatePartitionsRequestTopic()
	one.Topic, one.Count = topic, count
	req.Topics = append(req.Topics, one)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	if code := resp.Topics[0].ErrorCode; code != 0 {
		t.Fatalf("create partitions: error %d", code)
	}
}
