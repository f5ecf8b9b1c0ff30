package capture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
)

// writeLoad appends transactions whose texts count up, in the pace of a writer, until ctx
// ends. Some of the last are hidden from readers for a while.
func (l *fakeLog) writeLoad(ctx context.Context, rnd *rand.Rand, version *int, hide bool) {
	for ctx.Err() == nil {
		l.addVersions(rnd, version, 1+rnd.IntN(3))
		l.mu.Lock()
		l.hidden = 0
		if hide {
			l.hidden = rnd.IntN(4)
		}
		l.mu.Unlock()
		time.Sleep(time.Duration(rnd.IntN(1500)) * time.Microsecond) // the pace of the load
	}
	l.mu.Lock()
	l.hidden = 0
	l.mu.Unlock()
}

func (l *fakeLog) addVersions(rnd *rand.Rand, version *int, n int) {
	ops := []byte("ccuuud")
	for range n {
		if rnd.IntN(3) == 0 { // an UPDATE that leaves a large value of a row alone
			l.mu.Lock()
			old := l.tables(len(l.txs), true)["t0"]
			l.mu.Unlock()
			for _, r := range old[:min(1, len(old))] {
				*version++
				l.add(fakeRow{table: "t0", key: r.key, op: 'u', text: "~" + strconv.Itoa(*version)})
			}
		}
		rows := make([]fakeRow, 1+rnd.IntN(4))
		for i := range rows {
			*version++
			rows[i] = fakeRow{table: "t" + strconv.Itoa(rnd.IntN(3)), key: rnd.Int64N(50), op: ops[rnd.IntN(len(ops))], text: strconv.Itoa(*version)}
		}
		if rnd.IntN(40) == 0 {
			rows = append(rows, fakeRow{table: "t1", op: 't'})
		}
		l.add(rows...)
	}
}

// runWhile runs a capture, again after each errFake, until done says so; then until the log
// is confirmed to its end, while nobody writes any more.
func runWhile(t *testing.T, cfg Config, log *fakeLog, load func(ctx context.Context), done func() bool) (runs int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	loading, stopLoad := context.WithCancel(ctx)
	written := make(chan struct{})
	go func() {
		defer close(written)
		load(loading)
	}()
	go func() {
		for ctx.Err() == nil && !done() {
			time.Sleep(5 * time.Millisecond)
		}
		stopLoad()
		<-written
		for ctx.Err() == nil && (log.confirmedAt().Compare(log.end()) < 0 || !done()) {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	for ctx.Err() == nil {
		runs++
		if err := Run(ctx, cfg); err != nil && !errors.Is(err, errFake) {
			t.Fatal(err)
		}
	}
	<-written
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		list, _ := Backfills(t.Context(), cfg.Client, cfg.Name)
		t.Fatalf("not done: confirmed %v of %v, %+v", log.confirmedAt(), log.end(), list)
	}
	return runs
}

// allEnded says whether there are backfills and none has more to read.
func allEnded(t *testing.T, cfg *Config) func() bool {
	return func() bool {
		list, err := Backfills(t.Context(), cfg.Client, cfg.Name)
		for _, b := range list {
			if !b.State.Ended() {
				return false
			}
		}
		return err == nil && len(list) > 0
	}
}

// version returns the text of the row after a change of the fake log; "": there is none.
func version(t *testing.T, value []byte) string {
	t.Helper()
	if value == nil {
		return ""
	}
	b := value[frameSize:]
	long := func() int64 {
		n, size := int64(0), 0
		for shift := 0; ; shift += 7 {
			n |= int64(b[size]&0x7f) << shift
			size++
			if b[size-1] < 0x80 {
				break
			}
		}
		b = b[size:]
		return n>>1 ^ -(n & 1)
	}
	text := ""
	for range 2 {
		text = ""
		if long() == schemas.EnvelopeRow {
			long() // the key
			long() // the branch
			n := long()
			text, b = string(b[:n]), b[n:]
		}
	}
	return text
}

// checkTopic folds a topic and compares it with the rows of a table. In each partition n
// counts up, places rise, and the version of a key never falls.
func (c *testCluster) checkTopic(t *testing.T, topic string, want []fakeRow) (reads int) {
	t.Helper()
	info, err := c.client.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]string)
	for p := range info.Partitions {
		mine, last, whole := make(map[string]string), make(map[string]int), make(map[string]bool)
		var before stream.Mark
		_, err := c.client.ReadToEnd(t.Context(), topic, p, 0, func(r *stream.Record) error {
			mark, _, _, err := r.Mark()
			if err != nil {
				return err
			}
			if mark.N != before.N+1 || before.N > 0 && before.Place.Compare(mark.Place) >= 0 {
				return fmt.Errorf("%+v after %+v", mark, before)
			}
			before = mark
			key, text := string(body(r.Key)), version(t, r.Value)
			op := byte(0)
			if r.Value != nil {
				op = c.op(t, r.Value, mark)
			}
			if read := mark.Flags&stream.FlagBackfill != 0; op == 'r' && !read || read && op != 'r' && op != 't' {
				return fmt.Errorf("%c has flags %d", op, mark.Flags)
			}
			switch op {
			case 't':
				clear(mine)
				clear(whole)
			case 0, 'd':
				delete(mine, key)
				delete(whole, key)
			default:
				text, part := strings.CutPrefix(text, "~")
				whole[key] = whole[key] || !part
				n, err := strconv.Atoi(text)
				if err != nil || n < last[key] {
					return fmt.Errorf("offset %d: %c of key %x with version %s after %d", r.Offset, op, key, text, last[key])
				}
				last[key], mine[key] = n, text
				if op == 'r' {
					reads++
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%s/%d: %v", topic, p, err)
		}
		for k, v := range mine {
			if have[k] = v; !whole[k] {
				t.Errorf("%s: of key %x only a part was written", topic, k)
			}
		}
	}
	for _, row := range want {
		key := string(keyBody(row.key))
		if have[key] != row.text {
			t.Errorf("%s: key %d has version %q, want %q", topic, row.key, have[key], row.text)
		}
		delete(have, key)
	}
	for key, text := range have {
		t.Errorf("%s: key %x with version %s is not in the table", topic, key, text)
	}
	return reads
}

func (c *testCluster) checkAll(t *testing.T, log *fakeLog) (reads int) {
	t.Helper()
	for table, rows := range log.tables(len(log.txs), true) {
		reads += c.checkTopic(t, "p.public."+table, rows)
	}
	return reads
}

// failSometimes breaks the log's connection and fails reads of chunks, a limited number of times.
func failSometimes(log *fakeLog, rnd *rand.Rand) {
	breaks, errs := 25, 25
	log.failAt = func() bool {
		if breaks > 0 && rnd.IntN(120) == 0 {
			breaks--
			return true
		}
		return false
	}
	chance := rand.New(rand.NewPCG(rnd.Uint64(), 1))
	log.chunk = func(*ChunkRead) error {
		log.mu.Lock()
		defer log.mu.Unlock()
		if errs > 0 && chance.IntN(10) == 0 {
			errs--
			return errors.New("the connection of a chunk broke")
		}
		return nil
	}
}

// The tables are read in chunks while they are written to, with commits that readers do not
// see yet, and with runs and reads that break.
func TestBackfillInitialUnderLoad(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		for seed := range uint64(3) {
			rnd := rand.New(rand.NewPCG(31, seed))
			log, n := newFakeLog(), 0
			log.addVersions(rnd, &n, 80)
			failSometimes(log, rand.New(rand.NewPCG(32, seed)))
			cfg := c.config(log, transactional)
			cfg.Name, cfg.Naming.Prefix = fmt.Sprint("test", seed), "p"
			if seed > 0 {
				cfg.Naming.Prefix = fmt.Sprint("q", seed)
			}
			cfg.Snapshot = SnapshotInitial
			runs := runWhile(t, cfg, log, func(ctx context.Context) { log.writeLoad(ctx, rnd, &n, true) }, allEnded(t, &cfg))
			reads := 0
			for table, rows := range log.tables(len(log.txs), true) {
				reads += c.checkTopic(t, cfg.Naming.Prefix+".public."+table, rows)
			}
			if reads == 0 {
				t.Error("no row was read")
			}
			t.Logf("seed %d: %d runs, %d transactions, %d reads", seed, runs, len(log.txs), reads)
		}
	})
}

// send sends a command and waits for its outcome.
func (c *testCluster) send(t *testing.T, cfg *Config, cmd Command) *Outcome {
	t.Helper()
	cmd.At = time.Now()
	if err := Send(t.Context(), c.client, cfg.Name, &cmd); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		out, err := OutcomeOf(t.Context(), c.client, cfg.Name, cmd.ID)
		if err != nil {
			t.Fatal(err)
		}
		if out != nil {
			return out
		}
	}
	t.Fatalf("command %s was not carried out", cmd.ID)
	return nil
}

// byID returns a backfill as the state has it.
func (c *testCluster) byID(t *testing.T, cfg *Config, id string) Backfill {
	t.Helper()
	list, err := Backfills(t.Context(), c.client, cfg.Name)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if b.ID == id {
			return b
		}
	}
	t.Fatalf("there is no backfill %s in %+v", id, list)
	return Backfill{}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// background runs a capture until the test ends it.
func background(t *testing.T, cfg Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func TestBackfillCommands(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(41, 1))
		log, n := newFakeLog(), 0
		cfg := c.config(log, transactional)
		cfg.Snapshot = SnapshotNever
		log.addVersions(rnd, &n, 60)
		gate := make(chan struct{})
		log.chunk = func(r *ChunkRead) error {
			if r.Table.Name == "t2" {
				<-gate
			}
			return nil
		}
		stop := background(t, cfg)
		eventually(t, "tables are known", func() bool {
			s, err := loadState(t.Context(), &cfg)
			return err == nil && s.taken != nil
		})

		refused := func(want string, cmd Command) {
			t.Helper()
			if out := c.send(t, &cfg, cmd); !strings.Contains(out.Error, want) || out.Hint == "" {
				t.Errorf("%s: got %+v, want %q and a hint", cmd.ID, out, want)
			}
		}
		refused("names no table", Command{ID: "c1", Verb: VerbStart})
		refused("does not have table public.nope", Command{ID: "c2", Verb: VerbStart, Namespace: "public", Name: "nope"})
		refused("no backfill", Command{ID: "c3", Verb: VerbPause, Backfill: "nope"})
		refused("cannot be addressed", Command{ID: "c4", Verb: VerbStart, Namespace: "public", Name: "t0", ToTopic: "p.public.t1"})
		refused("a rate of", Command{ID: "c5", Verb: VerbStart, Namespace: "public", Name: "t0", Rate: -1})
		refused("unknown command", Command{ID: "c6", Verb: "dance", Backfill: "x"}.named(t, c, &cfg))

		if out := c.send(t, &cfg, Command{ID: "b1", Verb: VerbStart, Namespace: "public", Name: "t0"}); out.Error != "" {
			t.Fatal(out.Error)
		}
		eventually(t, "b1 is done", func() bool { return c.byID(t, &cfg, "b1").State == BackfillDone })

		// one that waits in its first chunk: another on the table is refused, it is paused,
		// resumed, and cancelled
		if out := c.send(t, &cfg, Command{ID: "b2", Verb: VerbStart, Namespace: "public", Name: "t2"}); out.Error != "" {
			t.Fatal(out.Error)
		}
		refused("has backfill b2", Command{ID: "b3", Verb: VerbStart, Namespace: "public", Name: "t2"})
		if out := c.send(t, &cfg, Command{ID: "p1", Verb: VerbPause, Backfill: "b2"}); out.Error != "" {
			t.Fatal(out.Error)
		}
		if b := c.byID(t, &cfg, "b2"); b.State != BackfillPaused {
			t.Errorf("b2 is %s", b.State)
		}
		refused("backfill b1 is done", Command{ID: "p2", Verb: VerbPause, Backfill: "b1"})
		if out := c.send(t, &cfg, Command{ID: "r1", Verb: VerbResume, Backfill: "b2"}); out.Error != "" {
			t.Fatal(out.Error)
		}
		close(gate)
		eventually(t, "b2 is done", func() bool { return c.byID(t, &cfg, "b2").State == BackfillDone })
		refused("backfill b2 is done", Command{ID: "r2", Verb: VerbResume, Backfill: "b2"})
		refused("backfill b2 is done", Command{ID: "x1", Verb: VerbCancel, Backfill: "b2"})
		eventually(t, "everything is read and confirmed", func() bool { return allEnded(t, &cfg)() && log.confirmedAt().Compare(log.end()) >= 0 })
		stop()
		if s := loadTestState(t, c, &cfg); len(s.chunks) != 0 {
			t.Errorf("chunks of ended backfills are left: %v", s.chunks)
		}
		tables := log.tables(len(log.txs), true)
		c.checkTopic(t, "p.public.t0", tables["t0"])
		c.checkTopic(t, "p.public.t2", tables["t2"])
	})
}

// named gives a command the id of a backfill that there is.
func (cmd Command) named(t *testing.T, c *testCluster, cfg *Config) Command {
	if out := c.send(t, cfg, Command{ID: "any", Verb: VerbStart, Namespace: "public", Name: "t1"}); out.Error != "" {
		t.Fatal(out.Error)
	}
	cmd.Backfill = "any"
	return cmd
}

// A backfill survives restarts where it stood, and a command waits for its capture.
func TestBackfillGoesOnAfterARestart(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(51, 1))
		log, n := newFakeLog(), 0
		cfg := c.config(log, transactional)
		cfg.Snapshot = SnapshotNever
		log.addVersions(rnd, &n, 100)
		runUntil(t, cfg, log)
		cmd := Command{ID: "b", Verb: VerbStart, Namespace: "public", Name: "t0", At: time.Now()}
		if err := Send(t.Context(), c.client, cfg.Name, &cmd); err != nil {
			t.Fatal(err)
		}
		if out, err := OutcomeOf(t.Context(), c.client, cfg.Name, "b"); err != nil || out != nil {
			t.Fatalf("outcome %v, %v of a command to a capture that does not run", out, err)
		}
		var after []string // of the chunks that were read
		left := 0          // in this run
		log.chunk = func(r *ChunkRead) error {
			log.mu.Lock()
			defer log.mu.Unlock()
			if left--; left < 0 {
				return errors.New("broken until the next run")
			}
			after = append(after, fmt.Sprint(r.Range.After))
			return nil
		}
		for runs := 0; !allEnded(t, &cfg)(); runs++ {
			log.mu.Lock()
			left = 3 + runs
			log.mu.Unlock()
			stop := background(t, cfg)
			eventually(t, "some chunks are read", func() bool {
				log.mu.Lock()
				broken := left < 0
				log.mu.Unlock()
				return broken || allEnded(t, &cfg)()
			})
			stop()
		}
		b := c.byID(t, &cfg, "b")
		rows := log.tables(len(log.txs), true)["t0"]
		if b.State != BackfillDone || b.Rows < int64(len(rows)) {
			t.Errorf("got %+v, the table has %d rows", b, len(rows))
		}
		if most := len(rows)/4 + 3 + 8*4; len(after) > most {
			t.Errorf("%d chunks were read, %d at most: %v", len(after), most, after)
		}
		c.checkTopic(t, "p.public.t0", rows)
	})
}

// Tables that join later are read, one after the other, while all are written to.
func TestBackfillOfTablesThatJoin(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(61, 1))
		log, n := newFakeLog(), 0
		log.add(fakeRow{table: "t0", key: 1, op: 'c', text: "0"})
		cfg := c.config(log, transactional)
		cfg.Snapshot = SnapshotInitial
		runWhile(t, cfg, log, func(context.Context) {}, allEnded(t, &cfg))
		log.addVersions(rnd, &n, 50) // the others come to be
		runWhile(t, cfg, log, func(ctx context.Context) { log.writeLoad(ctx, rnd, &n, true) }, func() bool {
			list, err := Backfills(t.Context(), c.client, cfg.Name)
			return err == nil && len(list) >= 3 && allEnded(t, &cfg)()
		})
		c.checkAll(t, log)
	})
}

// A log that is lost is answered by a new epoch in which the tables are read anew, where that
// was chosen; what the lost part did is made good.
func TestSnapshotWhenNeeded(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(81, 1))
		log, n := newFakeLog(), 0
		log.addVersions(rnd, &n, 50)
		cfg := c.config(log, transactional)
		cfg.Snapshot = SnapshotInitial
		load := func(ctx context.Context) { log.writeLoad(ctx, rnd, &n, true) }
		runWhile(t, cfg, log, load, allEnded(t, &cfg))
		for _, lose := range []func(){
			func() { log.ready = false },
			func() { log.lost = stopf("drop it, or when_needed", "the slot was invalidated") },
			func() { log.confirmed = Position{Offset: log.endLocked().Offset + 1} },
		} {
			log.addVersions(rnd, &n, 30) // nobody sees these
			lose()
			cfg.Snapshot = SnapshotInitial
			if err := Run(t.Context(), cfg); !IsFatal(err) || !strings.Contains(HintOf(err), "when_needed") {
				t.Fatalf("got %v, %q", err, HintOf(err))
			}
			cfg.Snapshot = SnapshotNeeded
			s := loadTestState(t, c, &cfg)
			epoch := s.newest().Epoch
			runWhile(t, cfg, log, load, func() bool {
				s, err := loadState(t.Context(), &cfg)
				return err == nil && s.newest().Epoch == epoch+1 && s.newest().Snapshot == snapshotDone && allEnded(t, &cfg)()
			})
			c.checkAll(t, log)
		}
	})
}

// Rows that are addressed to a topic go there alone, with a copy of what changes meanwhile,
// also when runs break and copy again what they replay.
func TestBackfillToTopic(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(71, 1))
		log, n := newFakeLog(), 0
		cfg := c.config(log, transactional)
		cfg.Snapshot = SnapshotNever
		log.addVersions(rnd, &n, 60)
		runUntil(t, cfg, log)
		cmd := Command{ID: "b", Verb: VerbStart, Namespace: "public", Name: "t1", ToTopic: "mine", At: time.Now()}
		if err := Send(t.Context(), c.client, cfg.Name, &cmd); err != nil {
			t.Fatal(err)
		}
		failSometimes(log, rand.New(rand.NewPCG(72, 1)))
		var rows []fakeRow
		runWhile(t, cfg, log, func(ctx context.Context) {
			log.writeLoad(ctx, rnd, &n, true)
			rows = log.tables(len(log.txs), true)["t1"]
		}, allEnded(t, &cfg))
		s := loadTestState(t, c, &cfg)
		until := s.routing.Topics["mine"].Until
		if until == nil {
			t.Fatal("the copying goes on")
		}
		// what the table was when the copying ended
		k := 0
		for k < len(log.txs) && log.txs[k].order.Pos <= until.Pos {
			k++
		}
		c.checkTopic(t, "mine", log.tables(k, true)["t1"])
		if b := c.byID(t, &cfg, "b"); b.Read == 0 { // the load may have changed each of them meanwhile
			t.Error("no row was read")
		}
		c.checkTopic(t, "p.public.t1", rows)
		if reads := c.checkTopic(t, "p.public.t1", rows); reads != 0 {
			t.Errorf("%d rows were read into the table's own topic", reads)
		}
	})
}

// Updates leave large values alone, which are then not in the log: a row that was read and
// then changed in that way is read again, or the value would be nowhere.
func TestBackfillOfRowsOfWhichTheLogHasAPart(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		rnd := rand.New(rand.NewPCG(91, 1))
		log := newFakeLog()
		for key := range int64(40) {
			log.add(fakeRow{table: "t0", key: key, op: 'c', text: "0"})
		}
		log.chunk = func(*ChunkRead) error {
			time.Sleep(time.Millisecond) // the pace of reading
			return nil
		}
		cfg := c.config(log, transactional)
		cfg.Snapshot = SnapshotInitial
		runWhile(t, cfg, log, func(ctx context.Context) {
			for n := 1; ctx.Err() == nil; n++ {
				log.add(fakeRow{table: "t0", key: rnd.Int64N(40), op: 'u', text: "~" + strconv.Itoa(n)})
				log.mu.Lock()
				log.hidden = rnd.IntN(3)
				log.mu.Unlock()
				time.Sleep(time.Duration(rnd.IntN(1000)) * time.Microsecond) // the pace of the load
			}
			log.mu.Lock()
			log.hidden = 0
			log.mu.Unlock()
		}, allEnded(t, &cfg))
		if reads := c.checkAll(t, log); reads < 40 {
			t.Errorf("%d rows were read", reads)
		}
	})
}
