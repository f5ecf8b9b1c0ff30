package capture

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/embedded"
)

// harmed is a capture that is brought to a stop.
type harmed struct {
	*testCluster
	*testing.T
	log *fakeLog
	cfg *Config

	first   positionState     // as it was after the first of two runs
	records map[string][]byte // of the state then
}

// put writes records into a topic, by key; an empty value deletes.
func (h *harmed) put(topic string, records map[string]any) {
	h.Helper()
	var b stream.Batch
	for _, key := range sortedAny(records) {
		var value []byte
		if v := records[key]; v != nil {
			value = mustJSON(v)
		}
		if err := b.Append(1, []byte(key), value, nil); err != nil {
			h.Fatal(err)
		}
	}
	produce(h.T, h.testCluster, topic, &b)
}

func sortedAny(m map[string]any) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (h *harmed) state() *state { return loadTestState(h.T, h.testCluster, h.cfg) }

func (h *harmed) deleteTopic(name string) {
	h.Helper()
	if err := h.client.DeleteTopic(h.Context(), name); err != nil {
		h.Fatal(err)
	}
}

func (h *harmed) makeTopic(name string, partitions int32) {
	h.Helper()
	if _, err := h.client.EnsureTopic(h.Context(), stream.TopicSpec{Name: name, Partitions: partitions, Replication: 1, Create: true}); err != nil {
		h.Fatal(err)
	}
}

// back has the state say what it said after the first run, while the topics stay.
func (h *harmed) back() {
	h.Helper()
	first := *h.state().newest()
	first.Position, first.Order = h.first.Position, h.first.Order
	h.log.confirmed = first.Position
	h.put(h.cfg.StateTopic(), map[string]any{positionKey(0): first, positionKey(1): first})
}

// last returns the last transaction.
func (h *harmed) last() *fakeTx { return &h.log.txs[len(h.log.txs)-1] }

// stopCase is one way in which a capture stops for good, and the way on.
type stopCase struct {
	name string
	harm func(h *harmed)
	want string // of the error
	way  string // the first that it names

	embedded bool // only on the embedded broker
	// effect has what the decision must say, beside what every one of its kind says.
	effect string
	check  func(h *harmed) // nil: the topics have the tables as the log has left them
}

var errLost = errors.New("the slot was invalidated")

// stopCases has every fatal stop of this package that a decision leads on from.
func stopCases() []stopCase {
	return []stopCase{
		{name: "slot gone", harm: func(h *harmed) { h.log.ready = false }, want: "is gone", way: WayEpoch},
		{name: "log lost", harm: func(h *harmed) { h.log.lost = errLost }, want: "the slot was invalidated", way: WayEpoch, effect: "dropped and made anew"},
		{name: "other server", harm: func(h *harmed) { h.log.identity = "fake/2" }, want: "belongs to another log", way: WayEpoch},
		{name: "slot advanced", harm: func(h *harmed) {
			h.log.confirmed.Offset += 1000
			h.last().end.Offset += 2000
		}, want: "can be read from", way: WayEpoch},
		{name: "server restored", harm: func(h *harmed) {
			h.log.txs, h.log.head = h.log.txs[:15], 0
			h.log.confirmed = h.log.endLocked()
		}, want: "the log ends at", way: WayEpoch},
		{name: "timeline unknown", harm: func(h *harmed) { h.log.timeline = 3 }, want: "which does not come from timeline 1", way: WayEpoch},
		{name: "timeline left before", harm: func(h *harmed) {
			h.log.timeline, h.log.forks = 3, []Fork{{Timeline: 1, At: Position{Offset: 120}}}
		}, want: "the database left it at", way: WayEpoch},
		{name: "tail beyond the timeline", harm: func(h *harmed) {
			h.back()
			h.log.timeline, h.log.forks = 3, []Fork{{Timeline: 1, At: h.first.Position}}
		}, want: "but the database left timeline 1 at", way: WayEpoch},
		{name: "another row in the log", harm: func(h *harmed) {
			h.back()
			h.last().rows[len(h.last().rows)-1].key += 7000
		}, want: "does not come from this log", way: WayEpoch},
		{name: "records lost", harm: func(h *harmed) {
			id, rec := h.anyPartition("p.public.t0")
			rec.N += 3
			h.put(h.cfg.StateTopic(), map[string]any{partitionKey(id): rec})
		}, want: "no position of the state is borne out", way: WayEpoch, effect: "3 records are lost"},
		{name: "topic deleted", harm: func(h *harmed) { h.deleteTopic("p.public.t0") },
			want: "does not exist any more", way: WayEpoch, effect: "is gone, with all that it held"},
		{name: "topic made anew", harm: func(h *harmed) {
			h.deleteTopic("p.public.t0")
			h.makeTopic("p.public.t0", 3)
		}, want: "made anew", way: WayEpoch, effect: "the topic was made anew"},
		{name: "topic made anew with fewer partitions", harm: func(h *harmed) {
			h.deleteTopic("p.public.t0")
			h.makeTopic("p.public.t0", 1)
		}, want: "made anew", way: WayEpoch, effect: "was made anew with 1 partitions; it had 3"},
		{name: "foreign writer", harm: func(h *harmed) {
			var b stream.Batch
			if err := b.Append(1, []byte("k"), []byte("v"), nil); err != nil {
				h.Fatal(err)
			}
			produce(h.T, h.testCluster, "p.public.t0", &b)
		}, want: "are not tailrace's", way: WayEpoch, effect: "holds 1 records of somebody else", check: func(h *harmed) {
			id := PartitionID{"p.public.t0", 0}
			if last, err := h.client.Tail(h.Context(), id.Topic, id.Number, 0); err != nil || last.Foreign != 1 || last.Mark.Epoch != 2 {
				h.Errorf("the partition ends with %+v, %v", last, err)
			}
			runUntil(h.T, *h.cfg, h.log) // and once more past it
		}},
		{name: "capture renamed", harm: func(h *harmed) { h.cfg.Name, h.log.ready = "other", false }, want: "there is no state, but", way: WayEpoch,
			effect: "holds records of a capture that the state does not know"},
		{name: "state without a position", harm: func(h *harmed) {
			h.put(h.cfg.StateTopic(), map[string]any{positionKey(0): nil, positionKey(1): nil})
			h.log.ready = false
		}, want: "has no position", way: WayEpoch},
		{name: "topic that the state does not know", harm: func(h *harmed) {
			s, records := h.state(), make(map[string]any)
			delete(s.routing.Topics, "p.public.t0")
			records[routingKey] = s.routing
			for id := range s.partitions {
				if id.Topic == "p.public.t0" {
					records[partitionKey(id)] = nil
				}
			}
			h.put(h.cfg.StateTopic(), records)
			h.log.add(fakeRow{table: "t0", key: 1, op: 'u', text: "x"})
		}, want: "holds records of a capture that the state does not know", way: WayEpoch, effect: "is taken up"},
		{name: "record of a newer version in the state", harm: func(h *harmed) {
			h.put(h.cfg.StateTopic(), map[string]any{"unheard/of": 1})
		}, want: "unknown key", way: WayEpoch, effect: "unheard/of"},
		{name: "mask of a key changed at the wrong time", harm: func(h *harmed) {
			h.back()
			for i := range h.log.txs {
				h.log.txs[i].keys = "other"
			}
		}, want: "the mask of a key of table", way: WayEpoch},
		{name: "retention during a backfill", embedded: true, harm: func(h *harmed) {
			h.unseen()
			h.put(h.cfg.StateTopic(), map[string]any{backfillKey("b"): Backfill{ID: "b", Namespace: "public", Name: "t0", State: BackfillRunning}})
		}, want: "retention took", way: WayEpoch, check: func(h *harmed) {
			if s := h.state(); s.newest().Epoch != 2 || s.backfills["b"].State != BackfillCancelled {
				h.Errorf("the state says %+v, backfill %s", s.newest(), s.backfills["b"].State)
			}
		}},
		{name: "slot before the capture", harm: func(h *harmed) {
			h.cfg.Name, h.cfg.Naming.Prefix = "fresh", "fresh"
		}, want: "the slot was there before the capture", way: WayEpoch, effect: "dropped and made anew", check: func(h *harmed) {
			if s := h.state(); s.newest().Epoch != 1 || s.newest().Snapshot != snapshotDone {
				h.Errorf("the state says %+v", s.newest())
			}
		}},
		{name: "row that cannot be decoded", harm: func(h *harmed) {
			h.log.add(fakeRow{table: "t1", key: 1, op: 'u', text: "a"}, fakeRow{table: "t0", key: 9001, op: 'c', text: poison})
			h.log.add(fakeRow{table: "t0", key: 9002, op: 'c', text: "after"})
		}, want: "the row cannot be decoded", way: WaySkip, effect: "1 transactions, 1 changes, stopped: the row cannot be decoded", check: skippedOne},
		{name: "two tables, one topic", harm: func(h *harmed) {
			h.log.add(fakeRow{table: "a$", key: 1, op: 'c'}, fakeRow{table: "a_", key: 1, op: 'c'})
		}, want: "share the topic", way: WaySkip, effect: "1 transactions, 2 changes", check: skippedOne},
		{name: "column without a name in Avro", harm: func(h *harmed) {
			h.log.add(fakeRow{table: unnamable, key: 1, op: 'c'})
		}, want: "derive schema", way: WaySkip, effect: "1 transactions, 1 changes", check: skippedOne},
		{name: "incompatible schema", harm: func(h *harmed) {
			h.log.add(fakeRow{table: "t0", key: 9003, op: 'c', text: "7"})
			h.last().version = 1
		}, want: "registry answered 409", way: WaySchema, effect: "p.public.t0-value after version 1, level BACKWARD (that of all subjects)", check: acceptedOne},
	}
}

// skippedOne: everything but the one transaction that was skipped is in the topics.
func skippedOne(h *harmed) {
	for i := range h.log.txs {
		for _, r := range h.log.txs[i].rows {
			if r.text == poison || r.table == "a$" || r.table == unnamable {
				h.log.txs = slices.Delete(h.log.txs, i, i+1)
				h.checkTables(h.T, h.log)
				return
			}
		}
	}
	h.Fatal("nothing was to be skipped")
}

// acceptedOne: the schema is registered, the level is back, and the next one is refused again.
func acceptedOne(h *harmed) {
	h.checkTables(h.T, h.log)
	last, err := h.registry.Latest(h.Context(), "p.public.t0-value")
	if err != nil || last.Version != 2 {
		h.Errorf("the last version is %d, %v", last.Version, err)
	}
	if level, own, err := h.registry.SubjectLevel(h.Context(), "p.public.t0-value"); err != nil || own || level != registry.Backward {
		h.Errorf("the level is %s, own %v, %v", level, own, err)
	}
	if s := h.state(); len(s.accepted) > 0 {
		h.Errorf("the state still accepts %v", s.accepted)
	}
	h.log.add(fakeRow{table: "t0", key: 9004, op: 'c', text: "true"})
	h.last().version = 2
	ctx, cancel := context.WithTimeout(h.Context(), 30*time.Second)
	defer cancel()
	err = Run(ctx, *h.cfg)
	if !registry.Incompatible(err) {
		h.Errorf("the next schema: %v", err)
	}
}

// anyPartition returns a partition of a topic that was written to.
func (h *harmed) anyPartition(topic string) (PartitionID, partitionState) {
	for id, rec := range h.state().partitions {
		if id.Topic == topic && rec.N > 0 {
			return id, rec
		}
	}
	h.Fatalf("nothing was written to %s", topic)
	return PartitionID{}, partitionState{}
}

// words writes an effect as the cases want it.
func (e *Effect) words() string {
	var parts []string
	for _, t := range e.Topics {
		parts = append(parts, t.Topic+" "+t.What)
	}
	parts = append(append(parts, e.Forgets...), e.Slot)
	if s := e.Skipped; s != nil {
		parts = append(parts, fmt.Sprintf("%d transactions, %d changes, stopped: %s", s.Transactions, s.Changes, s.Stopped))
	}
	if s := e.Schema; s != nil {
		parts = append(parts, fmt.Sprintf("%s after version %d, level %s", s.Subject, s.Version, s.Level))
	}
	return strings.Join(parts, "; ")
}

// decisionOf makes the decision that a way names.
func decisionOf(t *testing.T, w Way) Decision {
	t.Helper()
	switch w.Flag {
	case WayEpoch:
		return Decision{NewEpoch: true}
	case WaySkip:
		at, err := ParsePosition(w.Value)
		if err != nil {
			t.Fatal(err)
		}
		return Decision{SkipTo: &at}
	case WaySchema:
		return Decision{AcceptSchema: w.Value}
	}
	t.Fatalf("no decision is called %q", w.Flag)
	return Decision{}
}

// Every fatal stop names a decision, which says what it does, and from which the capture
// goes on just so.
func TestEveryStopHasAWayOn(t *testing.T) {
	messages := []string{
		"log goes back in p/0: x after y",                                       // a fault of a source: TestLogGoesBack
		"partition p/0 had 3 records that no state tells of, and that are gone", // TestSkipRefusesUnseenRecords
	}
	var mutex sync.Mutex
	ran := 0
	run := func(t *testing.T, tc stopCase) {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // most of the time goes into waiting for topics that are gone
			modes(t, func(t *testing.T, transactional bool, c *testCluster) {
				if tc.embedded && transactional {
					return
				}
				h := newHarmed(t, transactional, c)
				tc.harm(h)
				message := h.resolve(tc)
				mutex.Lock()
				messages = append(messages, message)
				ran++
				mutex.Unlock()
				h.log.addRandom(rand.New(rand.NewPCG(5, 8)), 5)
				runUntil(t, *h.cfg, h.log)
				if tc.check != nil {
					tc.check(h)
					return
				}
				c.checkTables(t, h.log)
			})
		})
	}
	t.Run("cases", func(t *testing.T) {
		for _, tc := range stopCases() {
			run(t, tc)
		}
	})
	if ran >= len(stopCases()) {
		checkComplete(t, messages)
	}
}

// newHarmed runs a capture twice.
func newHarmed(t *testing.T, transactional bool, c *testCluster) *harmed {
	t.Helper()
	log := newFakeLog()
	log.timeline, log.keyless = 1, true
	log.addRandom(rand.New(rand.NewPCG(5, 6)), 20)
	cfg := c.config(log, transactional)
	cfg.Snapshot = SnapshotInitial
	runUntil(t, cfg, log)
	records, err := c.client.LoadState(t.Context(), cfg.StateTopic())
	if err != nil {
		t.Fatal(err)
	}
	h := &harmed{testCluster: c, T: t, log: log, cfg: &cfg, first: *loadTestState(t, c, &cfg).newest(), records: records}
	log.addRandom(rand.New(rand.NewPCG(5, 7)), 20)
	runUntil(t, cfg, log)
	return h
}

// unseen puts the state back to where it was after the first run, and takes away all records.
func (h *harmed) unseen() {
	h.Helper()
	ends := highest(h.testCluster.records(h.T))
	rewind(h.T, h.testCluster, h.cfg, h.records, h.log)
	for id, n := range ends {
		deleteRecords(h.T, h.testCluster, id, int64(n))
	}
}

// resolve brings the capture to its stop, and takes the way on.
func (h *harmed) resolve(tc stopCase) (message string) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 30*time.Second)
	defer cancel()
	err := Run(ctx, *h.cfg)
	ways := WaysOf(err)
	if err == nil || !IsFatal(err) || !strings.Contains(err.Error(), tc.want) || HintOf(err) == "" {
		h.Fatalf("got %v, hint %q; want %q", err, HintOf(err), tc.want)
	}
	if len(ways) == 0 || ways[0].Flag != tc.way {
		h.Fatalf("%v leads on by %v, want %s", err, ways, tc.way)
	}
	d := decisionOf(h.T, ways[0])
	before := h.everything()
	var told Effect
	refused := errors.New("no")
	if err := Resolve(ctx, *h.cfg, d, func(_ context.Context, e *Effect) error { return refused }); !errors.Is(err, refused) {
		h.Fatalf("who says no gets %v", err)
	}
	if after := h.everything(); after != before {
		h.Fatalf("it was not agreed to, and yet\n%s\nbecame\n%s", before, after)
	}
	if rerr := Resolve(ctx, *h.cfg, d, func(_ context.Context, e *Effect) error { told = *e; return nil }); rerr != nil {
		h.Fatal(rerr)
	}
	if !strings.Contains(told.words(), tc.effect) {
		h.Errorf("it says %q, want %q", told.words(), tc.effect)
	}
	if epoch := map[bool]uint64{true: 2, false: 1}[tc.way == WayEpoch && tc.name != "slot before the capture"]; told.Epoch != epoch || told.Reads != (tc.way == WayEpoch) {
		h.Errorf("it says epoch %d, reads %v", told.Epoch, told.Reads)
	}
	if told.Capture != h.cfg.Name || told.Way != tc.way {
		h.Errorf("it says %s of %s", told.Way, told.Capture)
	}
	return err.Error()
}

// everything is what is stored anywhere, as text.
func (h *harmed) everything() string {
	topics, err := h.client.Topics(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	var b strings.Builder
	for _, topic := range topics {
		for p := range topic.Partitions {
			at, err := h.client.Offsets(h.Context(), topic.Name, p)
			if err != nil {
				h.Fatal(err)
			}
			fmt.Fprintln(&b, topic.Name, p, at.Start, at.End)
		}
	}
	fmt.Fprintln(&b, h.log.ready, h.log.lost, h.log.confirmed)
	return b.String()
}

// checkComplete makes sure that each error of this package that only a new epoch leads on
// from was met.
func checkComplete(t *testing.T, messages []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			format, ok := formatOf(n)
			if !ok {
				return true
			}
			found++
			message := regexp.MustCompile("(?s)" + regexp.MustCompile(`%[a-z]`).ReplaceAllString(regexp.QuoteMeta(format), ".*"))
			if !slices.ContainsFunc(messages, message.MatchString) {
				t.Errorf("%s: no case provokes %q", file, format)
			}
			return true
		})
	}
	if found < 15 {
		t.Errorf("only %d errors were found in the source", found)
	}
}

// formatOf returns the format of a call of epochf or lostLog.
func formatOf(n ast.Node) (string, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return "", false
	}
	name, ok := call.Fun.(*ast.Ident)
	if !ok {
		return "", false
	}
	at, ok := map[string]int{"epochf": 1, "lostLog": 0}[name.Name]
	if !ok || len(call.Args) <= at {
		return "", false
	}
	lit, ok := call.Args[at].(*ast.BasicLit)
	if !ok {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// A source that goes back is stopped before anything is written twice.
func TestLogGoesBack(t *testing.T) {
	p, r := idlePipeline(t)
	p.writeOne(t, r, 100)
	if err := p.Begin(&Tx{Pos: 90, ID: "2"}); err != nil {
		t.Fatal(err)
	}
	err := p.Change(t.Context(), &Change{Route: r, Op: 'c', Key: make([]byte, frameSize+1), Value: make([]byte, frameSize+1)})
	if err == nil || !strings.Contains(err.Error(), "log goes back") || WaysOf(err)[0].Flag != WayEpoch {
		t.Errorf("got %v", err)
	}
}

// What stands behind a position cannot be told from what is before, so that skipping might
// lose or repeat.
func TestSkipRefusesUnseenRecords(t *testing.T) {
	b, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	h := newHarmed(t, false, dial(t, []string{b.Addr()}))
	h.unseen()
	at := h.log.end()
	err = Resolve(t.Context(), *h.cfg, Decision{SkipTo: &at}, func(context.Context, *Effect) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "records that no state tells of") || WaysOf(err)[0].Flag != WayEpoch {
		t.Errorf("got %v", err)
	}
}

// A capture that runs has its log busy; here another run of it is fenced instead.
func TestResolveDoesWhatItSaid(t *testing.T) {
	c := newCluster(t)
	log := newFakeLog()
	log.keyless = true
	log.addRandom(rand.New(rand.NewPCG(8, 1)), 20)
	cfg := c.config(log, true)
	cfg.Snapshot = SnapshotInitial
	runUntil(t, cfg, log)
	log.ready = false
	err := Resolve(t.Context(), cfg, Decision{NewEpoch: true}, func(context.Context, *Effect) error {
		return c.client.DeleteTopic(t.Context(), "p.public.t0") // meanwhile
	})
	if err == nil || !strings.Contains(err.Error(), "no longer what was told") {
		t.Errorf("got %v", err)
	}
	if s := loadTestState(t, c, &cfg); s.newest().Snapshot != snapshotDone {
		t.Errorf("the state says %+v", s.newest())
	}
}

// Bad decisions are refused, with what to do instead.
func TestResolveRefuses(t *testing.T) {
	c := newCluster(t)
	log := newFakeLog()
	log.keyless = true
	cfg := c.config(log, true)
	cfg.Snapshot = SnapshotInitial
	at := func(n uint64) *Position { return &Position{Offset: n} }
	refused := func(d Decision, want string) {
		t.Helper()
		err := Resolve(t.Context(), cfg, d, func(context.Context, *Effect) error {
			t.Errorf("%+v was told", d)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", d, err, want)
		}
		if HintOf(err) == "" {
			t.Errorf("%+v: no hint for %v", d, err)
		}
	}
	refused(Decision{NewEpoch: true}, "has never run")
	refused(Decision{SkipTo: at(10)}, "has never run")
	refused(Decision{Repartition: []string{"p.public.t0"}}, "has never run")
	refused(Decision{AcceptSchema: "x"}, "has never run")
	log.addRandom(rand.New(rand.NewPCG(9, 1)), 20)
	runUntil(t, cfg, log)
	refused(Decision{}, "must be one")
	refused(Decision{NewEpoch: true, AcceptSchema: "x"}, "must be one")
	refused(Decision{SkipTo: at(10)}, "cannot be skipped")
	refused(Decision{SkipTo: at(1 << 40)}, "cannot be skipped")
	refused(Decision{AcceptSchema: "nobody"}, "nobody")
	refused(Decision{Repartition: []string{"p.public.t0"}}, "has 3 partitions, and the capture uses 3")
	refused(Decision{Repartition: []string{"p.transaction"}}, "does not write the changes of a table")
	log.ready = false
	refused(Decision{SkipTo: at(log.end().Offset)}, "is gone")
}

// Without a snapshot an epoch goes on where the log allows it.
func TestNewEpochWithoutSnapshot(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		log := newFakeLog()
		log.addRandom(rand.New(rand.NewPCG(6, 1)), 20)
		cfg := c.config(log, transactional)
		runUntil(t, cfg, log)
		end := log.end()
		var told Effect
		decide := func() {
			t.Helper()
			if err := Resolve(t.Context(), cfg, Decision{NewEpoch: true}, func(_ context.Context, e *Effect) error { told = *e; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		decide()
		if told.Epoch != 2 || told.Reads || told.To == nil || told.To.Compare(end) != 0 || told.Again {
			t.Errorf("it says %+v", told)
		}
		log.addRandom(rand.New(rand.NewPCG(6, 2)), 10)
		runUntil(t, cfg, log)
		for id, recs := range c.records(t) {
			for i, r := range recs {
				if after := r.mark.Pos >= end.Offset; r.mark.N != uint64(i+1) || after != (r.mark.Epoch == 2) {
					t.Errorf("%s: %+v", id, r.mark)
				}
			}
		}
		log.ready = false // the slot is gone: what happens meanwhile is lost
		log.addRandom(rand.New(rand.NewPCG(6, 3)), 10)
		decide()
		if told.Epoch != 3 || told.To != nil || told.Slot != "made anew now" {
			t.Errorf("it says %+v", told)
		}
		runUntil(t, cfg, log)
	})
}

// More partitions are used from a person's decision on, after everything was read anew.
func TestRepartition(t *testing.T) {
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		log := newFakeLog()
		log.keyless = true
		log.addRandom(rand.New(rand.NewPCG(10, 1)), 60)
		cfg := c.config(log, transactional)
		cfg.Snapshot = SnapshotInitial
		runUntil(t, cfg, log)
		c.morePartitions(t, "p.public.t0", 5)
		log.addRandom(rand.New(rand.NewPCG(10, 2)), 20)
		runUntil(t, cfg, log)
		for id := range c.records(t) {
			if id.Topic == "p.public.t0" && id.Number >= 3 {
				t.Fatalf("%s is used without a decision", id)
			}
		}
		never := cfg
		never.Snapshot = SnapshotNever
		if err := Resolve(t.Context(), never, Decision{Repartition: []string{"p.public.t0"}}, nil); err == nil || !strings.Contains(err.Error(), "nothing tells readers") {
			t.Fatalf("without a snapshot: %v", err)
		}
		var told Effect
		if err := Resolve(t.Context(), cfg, Decision{Repartition: []string{"p.public.t0"}}, func(_ context.Context, e *Effect) error { told = *e; return nil }); err != nil {
			t.Fatal(err)
		}
		if told.Epoch != 2 || !told.Reads || told.words() != "p.public.t0 its keys go to 5 partitions; so far to 3; dropped and made anew when the capture starts" {
			t.Errorf("it says %+v", told)
		}
		log.addRandom(rand.New(rand.NewPCG(10, 3)), 60)
		runUntil(t, cfg, log)
		c.checkTables(t, log)
		used := make(map[int32]bool)
		for id, recs := range c.records(t) {
			if id.Topic == "p.public.t0" {
				used[id.Number] = slices.ContainsFunc(recs, func(g got) bool { return g.op == 'r' || g.op == 'c' })
			}
		}
		if !used[3] || !used[4] {
			t.Errorf("used are %v", used)
		}
	})
}

// A new epoch without a snapshot goes on where the last one stood only in the log that it was
// read from.
func TestWhereAnEpochGoesOn(t *testing.T) {
	at := func(offset uint64) Position { return Position{Offset: offset} }
	for name, c := range map[string]struct {
		change func(p *positionState, info *LogInfo)
		want   uint64
	}{
		"the same log":                  {func(*positionState, *LogInfo) {}, 500},
		"another server":                {func(_ *positionState, i *LogInfo) { i.Identity = "b" }, 100},
		"the log does not have it":      {func(p *positionState, _ *LogInfo) { p.Position = at(50) }, 100},
		"the log ends before":           {func(p *positionState, _ *LogInfo) { p.Position = at(950) }, 100},
		"a timeline that left before":   {func(_ *positionState, i *LogInfo) { i.Timeline, i.Forks = 2, []Fork{{Timeline: 1, At: at(300)}} }, 300},
		"a timeline that left later":    {func(_ *positionState, i *LogInfo) { i.Timeline, i.Forks = 2, []Fork{{Timeline: 1, At: at(700)}} }, 500},
		"a timeline of somewhere else":  {func(_ *positionState, i *LogInfo) { i.Timeline = 2 }, 100},
		"a timeline that left long ago": {func(_ *positionState, i *LogInfo) { i.Timeline, i.Forks = 2, []Fork{{Timeline: 1, At: at(20)}} }, 100},
	} {
		p := positionState{G: 4, Epoch: 1, Identity: "a", Timeline: 1, Position: at(500), Snapshot: snapshotNone}
		info := LogInfo{Identity: "a", Timeline: 1, Ready: true, Lowest: at(100), Highest: at(900)}
		c.change(&p, &info)
		s := emptyState()
		s.positions[0] = &p
		r := &resolution{s: s, info: info, effect: Effect{From: &p.Position}}
		r.goOn(p, 2)
		if r.next.Position != at(c.want) || *r.effect.To != at(c.want) || r.effect.Again != (c.want < p.Position.Offset) {
			t.Errorf("%s: from %v, again %v; want %d", name, r.next.Position, r.effect.Again, c.want)
		}
	}
}
