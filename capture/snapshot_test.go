package capture

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/stream"
)

// checkTables folds what the topics hold and compares it with what the log has left: the
// newest epoch's TRUNCATE and rows replace what an interrupted snapshot has written.
func (c *testCluster) checkTables(t *testing.T, log *fakeLog) (epochs, reads int) {
	t.Helper()
	have := make(map[string]map[string]byte)
	for id, recs := range c.records(t) {
		if id.Topic == "p.transaction" {
			continue
		}
		table := strings.TrimPrefix(id.Topic, "p.public.")
		if have[table] == nil {
			have[table] = make(map[string]byte)
		}
		mine := make(map[string]byte)
		for i, r := range recs {
			if r.mark.N != uint64(i+1) || i > 0 && recs[i-1].mark.Compare(r.mark.Place) >= 0 {
				t.Fatalf("%s: %+v after %+v", id, r.mark, recs[max(0, i-1)].mark)
			}
			epochs = max(epochs, int(r.mark.Epoch))
			if read := r.op == 'r' || r.op == 't'; read != (r.mark.Flags&stream.FlagBackfill != 0) {
				t.Fatalf("%s: %c with flags %d", id, r.op, r.mark.Flags)
			}
			switch r.op {
			case 't':
				clear(mine)
			case 'd', 0:
				delete(mine, r.key)
			case 'r':
				reads++
				mine[r.key] = r.op
			default:
				mine[r.key] = r.op
			}
		}
		for k, op := range mine {
			have[table][k] = op
		}
	}
	for table, rows := range log.tables(len(log.txs), true) {
		if len(have[table]) != len(rows) {
			t.Fatalf("%s has %d rows, want %d", table, len(have[table]), len(rows))
		}
		for _, r := range rows {
			if _, ok := have[table][string(keyBody(r.key))]; !ok {
				t.Fatalf("%s: row %d is missing", table, r.key)
			}
		}
	}
	return epochs, reads
}

func TestSnapshot(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(21, 1))
		log := newFakeLog()
		log.addRandom(rnd, 100)
		cfg := c.config(log, transactional)
		cfg.Snapshot, log.keyless = SnapshotInitial, true
		runUntil(t, cfg, log)
		log.addRandom(rnd, 100)
		runUntil(t, cfg, log)
		epochs, reads := c.checkTables(t, log)
		want := 0
		for _, rows := range log.tables(100, true) {
			want += len(rows)
		}
		if epochs != 1 || reads != want {
			t.Errorf("epoch %d with %d rows read, want 1 with %d", epochs, reads, want)
		}
		if s := loadTestState(t, c, &cfg); s.positions[0].Snapshot != snapshotDone || s.positions[1].Snapshot != snapshotDone {
			t.Errorf("positions %+v and %+v", s.positions[0], s.positions[1])
		}
	})
}

// A snapshot that is interrupted begins anew, in a new epoch, with a TRUNCATE; one that is
// done does not.
func TestSnapshotInterrupted(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(22, 1))
		log := newFakeLog()
		log.addRandom(rnd, 100)
		left := 6
		log.failAt = func() bool {
			if left > 0 && rnd.IntN(40) == 0 {
				left--
				return true
			}
			return false
		}
		cfg := c.config(log, transactional)
		cfg.Snapshot, log.keyless = SnapshotInitial, true
		for left > 0 {
			runUntil(t, cfg, log)
			log.addRandom(rnd, 30)
		}
		runUntil(t, cfg, log)
		if epochs, _ := c.checkTables(t, log); epochs < 2 {
			t.Error("the snapshot was never interrupted")
		}
	})
}

// The slot was there before the capture: no snapshot can be tied to it.
func TestSnapshotNeedsItsOwnSlot(t *testing.T) {
	c := newCluster(t)
	log := newFakeLog()
	log.addRandom(rand.New(rand.NewPCG(23, 1)), 5)
	log.ready, log.confirmed = true, Position{Offset: 50}
	cfg := c.config(log, true)
	cfg.Snapshot, log.keyless = SnapshotInitial, true
	stops(t, cfg, "was there before")
}
