package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
	"github.com/tailrace/tailrace/stream"
)

// fakeLog is a database's log in memory: transactions over a few tables with an integer
// key and a text. It remembers what was confirmed, and from there on what may be read.
type fakeLog struct {
	mu        sync.Mutex
	identity  string
	ready     bool
	txs       []fakeTx
	confirmed Position
	timeline  uint32
	forks     []Fork
	failAt    func() bool // asked before each event: end the run with errFake
	prepared  int         // how many of txs were there when the log was prepared
	head      uint64      // the log goes on to here, with nothing for us
	lost      error       // why it cannot be read any more
	keyless   bool        // its tables have no key as far as Tables says
	hidden    int         // the last transactions are in the log, and not yet visible
	seen      int         // how many readers have seen so far
	wake      chan struct{}
	chunk     func(r *ChunkRead) error // asked before each chunk is read; may be nil
	shown     int                      // transactions that a run has shown
}

type fakeTx struct {
	order   order
	end     Position
	rows    []fakeRow
	read    bool
	version int    // of the tables; 1: v is a number, 2: a boolean
	keys    string // TableVersion.Keys of its rows
}

type fakeRow struct {
	table string
	key   int64
	op    byte   // c, u, d, t, r
	text  string // "~7": version 7 of a row of which the log has only a part; poison: it cannot be decoded
}

var errFake = errors.New("the log's connection broke")

func newFakeLog() *fakeLog {
	return &fakeLog{identity: "fake/1", wake: make(chan struct{}, 1), failAt: func() bool { return false }}
}

// add appends a transaction.
func (l *fakeLog) add(rows ...fakeRow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := uint64(100)
	if n := len(l.txs); n > 0 {
		at = max(l.txs[n-1].end.Offset, l.head) + 10
	}
	l.txs = append(l.txs, fakeTx{order: order{Pos: at}, end: Position{Offset: at + 20}, rows: rows})
}

// addRandom appends n transactions.
func (l *fakeLog) addRandom(rnd *rand.Rand, n int) {
	ops := []byte("ccuuud")
	for range n {
		rows := make([]fakeRow, 1+rnd.IntN(6))
		for i := range rows {
			rows[i] = fakeRow{table: "t" + strconv.Itoa(rnd.IntN(3)), key: rnd.Int64N(50), op: ops[rnd.IntN(len(ops))], text: fmt.Sprint("v", rnd.IntN(1000))}
		}
		l.add(rows...)
	}
}

func (l *fakeLog) end() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.endLocked()
}

func (l *fakeLog) endLocked() Position {
	if len(l.txs) == 0 {
		return Position{Offset: 50}
	}
	return Position{Offset: max(l.txs[len(l.txs)-1].end.Offset, l.head)}
}

func (l *fakeLog) confirmedAt() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.confirmed
}

// fakeSource reads a fakeLog.
type fakeSource struct {
	log   *fakeLog
	w     *schemas.SourceWriter
	key   []byte
	value []byte
}

func (l *fakeLog) source() (Source, error) {
	return &fakeSource{log: l, w: schemas.NewSourceWriter(schemas.SourceConfig{Version: "test", Connector: "postgresql", Name: "p", Database: "d"})}, nil
}

func (s *fakeSource) Inspect(context.Context) (LogInfo, error) {
	end := s.log.end()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return LogInfo{Identity: s.log.identity, Ready: s.log.ready && s.log.lost == nil, Lost: s.log.lost, Lowest: s.log.confirmed, Highest: end, Timeline: s.log.timeline, Forks: s.log.forks}, nil
}

// Prepare begins at the log's start, or with a snapshot at its end.
func (s *fakeSource) Prepare(_ context.Context, snapshot bool) (Position, []CapturedTable, error) {
	tables, _ := s.Tables(context.Background())
	end := s.log.end()
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.ready, s.log.confirmed = true, Position{Offset: 50}
	if snapshot {
		s.log.confirmed, s.log.prepared = Position{Offset: end.Offset + 4}, len(s.log.txs)
		s.log.head = end.Offset + 8
	}
	return s.log.confirmed, tables, nil
}

func (s *fakeSource) Discard(context.Context) error {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.ready, s.log.lost = false, nil
	return nil
}

// Snapshot writes what the transactions before Prepare have left, table by table, in
// portions of three rows.
func (s *fakeSource) Snapshot(ctx context.Context, anew bool, out Emitter) error {
	at := s.log.confirmedAt()
	routes := make(map[string]*Route)
	s.log.mu.Lock()
	tables := s.log.tables(s.log.prepared, s.log.keyless)
	s.log.mu.Unlock()
	for table, rows := range tables {
		portion := rows
		for first := true; first || len(rows) > 0; first = false {
			portion, rows = rows[:min(3, len(rows))], rows[min(3, len(rows)):]
			if anew && first {
				portion = append([]fakeRow{{table: table, op: 't'}}, portion...)
			}
			tx := fakeTx{order: order{Pos: at.Offset - 1}, end: at, rows: portion, read: true}
			if err := s.emit(ctx, tx, routes, out); err != nil {
				return err
			}
		}
	}
	return nil
}

// tables returns the tables of the log, and the rows that the first n transactions have
// left, in no order.
func (l *fakeLog) tables(n int, rows bool) map[string][]fakeRow {
	state := make(map[string]map[int64]fakeRow)
	for _, tx := range l.txs[:n] {
		for _, r := range tx.rows {
			if state[r.table] == nil {
				state[r.table] = make(map[int64]fakeRow)
			}
			switch {
			case r.op == 't':
				clear(state[r.table])
				continue
			case r.op == 'd':
				delete(state[r.table], r.key)
				continue
			case !rows:
				continue
			}
			state[r.table][r.key] = fakeRow{table: r.table, key: r.key, op: 'r', text: strings.TrimPrefix(r.text, "~")}
		}
	}
	tables := make(map[string][]fakeRow)
	for t, rows := range state {
		tables[t] = slices.Collect(maps.Values(rows))
	}
	return tables
}

func (s *fakeSource) Confirm(p Position) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if p.Compare(s.log.confirmed) > 0 {
		s.log.confirmed = p
	}
}

func (s *fakeSource) Close() error { return nil }

// Run emits what the log holds after from, then idles until there is more.
func (s *fakeSource) Run(ctx context.Context, from Position, out Emitter) error {
	if from.Compare(s.log.confirmedAt()) < 0 {
		return errors.New("the log does not reach back that far")
	}
	routes := make(map[string]*Route)
	for i := 0; ; {
		s.log.mu.Lock()
		txs, end := s.log.txs[i:], s.log.endLocked()
		s.log.mu.Unlock()
		for _, tx := range txs {
			i++
			s.log.mu.Lock()
			s.log.shown = i
			s.log.mu.Unlock()
			if tx.order.Pos < from.Offset { // as PostgreSQL does
				continue
			}
			if err := s.emit(ctx, tx, routes, out); err != nil {
				return err
			}
		}
		out.Wait()
		select {
		case <-ctx.Done():
			out.Resume()
			return ctx.Err()
		case <-s.log.wake:
		case <-time.After(time.Millisecond):
		}
		out.Resume()
		if len(txs) == 0 {
			if err := out.Idle(ctx, end, true); err != nil {
				return err
			}
		}
	}
}

func (s *fakeSource) emit(ctx context.Context, tx fakeTx, routes map[string]*Route, out Emitter) error {
	if err := out.Begin(&Tx{Pos: tx.order.Pos, XID: tx.order.Pos, ID: strconv.FormatUint(tx.order.Pos, 10), CommitTime: time.Now().UnixMicro(), Read: tx.read}); err != nil {
		return err
	}
	s.w.SetTransaction(schemas.SourceTx{ID: tx.order.Pos, CommitMicros: 1})
	for _, row := range tx.rows {
		if s.log.failAt() {
			return errFake
		}
		if row.text == poison {
			return stopf("the row has a value that has no form", "the row cannot be decoded")
		}
		if r := routes[row.table]; r == nil || r.Table.Columns[1].Type.Kind != fakeTable(row.table, tx.version).Columns[1].Type.Kind {
			hash := "h" + strconv.Itoa(tx.version+1)
			r, err := out.Table(ctx, &TableVersion{Namespace: "public", Name: row.table, Hash: hash + tx.keys, Log: hash, Keys: tx.keys,
				Describe: func(context.Context) (*schemas.Table, error) { return fakeTable(row.table, tx.version), nil }})
			if err != nil {
				return err
			}
			routes[row.table] = r
		}
		if err := s.change(ctx, routes[row.table], row, tx.order.Pos, out); err != nil {
			return err
		}
	}
	if s.log.failAt() {
		return errFake
	}
	return out.Commit(ctx, tx.end)
}

func keyBody(key int64) []byte { return schemas.AppendLong(nil, key) }

const (
	poison    = "\x00poison"
	unnamable = "unnamable" // a table with a column whose name Avro does not take
)

func fakeTable(name string, version int) *schemas.Table {
	t := &schemas.Table{Namespace: "public", Name: name, Key: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int64}},
		{Name: "v", Type: schemas.Type{Kind: schemas.String}, Nullable: true},
	}}
	t.Columns[1].Type.Kind = []schemas.Kind{schemas.String, schemas.Int64, schemas.Bool}[version]
	if name == unnamable {
		t.Columns[1].Name = "1 2"
	}
	return t
}

func (s *fakeSource) change(ctx context.Context, r *Route, row fakeRow, lsn uint64, out Emitter) error {
	c := Change{Route: r, Op: row.op, Part: strings.HasPrefix(row.text, "~")}
	if row.op != 't' {
		s.key = schemas.AppendLong(schemas.AppendFrame(s.key[:0], r.KeyID), row.key)
		c.Key = s.key
	}
	s.value = s.encode(s.value[:0], r, row, lsn)
	c.Value = s.value
	if err := out.Change(ctx, &c); err != nil || row.op != 'd' {
		return err
	}
	c.Op, c.Value = 0, nil
	return out.Change(ctx, &c)
}

func (s *fakeSource) encode(dst []byte, r *Route, row fakeRow, lsn uint64) []byte {
	image := func(present bool) {
		if !present {
			dst = schemas.AppendUnion(dst, schemas.EnvelopeNull)
			return
		}
		dst = schemas.AppendLong(schemas.AppendUnion(dst, schemas.EnvelopeRow), row.key)
		switch dst = schemas.AppendUnion(dst, 1); r.Table.Columns[1].Type.Kind {
		case schemas.Int64:
			dst = schemas.AppendLong(dst, 7)
		case schemas.Bool:
			dst = append(dst, 1)
		default:
			dst = schemas.AppendString(dst, row.text)
		}
	}
	dst = schemas.AppendFrame(dst, r.ValueID)
	image(row.op == 'd')
	image(row.op == 'c' || row.op == 'u' || row.op == 'r')
	dst = s.w.Append(dst, schemas.NewSourceTable("public", row.table), lsn)
	return schemas.AppendEnvelopeTail(dst, row.op, 1)
}

// testCluster is a broker in memory with a registry beside it.
type testCluster struct {
	client   *stream.Client
	registry *registry.Client
	addrs    []string
}

func newCluster(t testing.TB) *testCluster {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return dial(t, c.ListenAddrs())
}

func dial(t testing.TB, addrs []string) *testCluster {
	client, err := stream.NewClient(stream.Config{Brokers: addrs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	reg, err := registry.NewClient(registry.ClientConfig{URL: registrytest.Start(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reg.Close)
	return &testCluster{client: client, registry: reg, addrs: addrs}
}

func (c *testCluster) config(log *fakeLog, transactional bool) Config {
	return Config{
		Name: "test", Naming: schemas.Naming{Prefix: "p", Connector: "postgresql"}, Client: c.client, Registry: c.registry,
		Source: log.source, Transactional: transactional, Topics: Topics{Partitions: 3, Create: true}, Codec: stream.LZ4,
		Monitor: NewMonitor("test", nil), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// got is one record of a topic, as an outsider reads it.
type got struct {
	PartitionID
	mark stream.Mark
	key  string
	op   byte
	end  []stream.EndPart
}

// records reads all partitions of the capture's topics.
func (c *testCluster) records(t testing.TB) map[PartitionID][]got {
	t.Helper()
	all := make(map[PartitionID][]got)
	topics, err := c.client.Topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics {
		if topic.Name[:2] != "p." {
			continue
		}
		for p := range topic.Partitions {
			id := PartitionID{topic.Name, p}
			at, err := c.client.Offsets(t.Context(), id.Topic, p)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.client.ReadToEnd(t.Context(), id.Topic, p, at.Start, func(r *stream.Record) error {
				mark, rest, found, err := r.Mark()
				if err != nil || !found {
					return fmt.Errorf("record %d without a mark: %v", r.Offset, err)
				}
				g := got{PartitionID: id, mark: mark, key: string(body(r.Key)), op: c.op(t, r.Value, mark)}
				if mark.Flags&stream.FlagEnd != 0 {
					if g.end, err = stream.ParseEndParts(rest); err != nil {
						return err
					}
				}
				all[id] = append(all[id], g)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

func (c *testCluster) op(t testing.TB, value []byte, m stream.Mark) byte {
	op, err := tailOp(t.Context(), &Config{Registry: c.registry}, &tail{known: true, value: value, flags: m.Flags})
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// check compares the topics with the log: every record once, at its place, n without gaps,
// and an END record for each transaction that names what it touched.
func (c *testCluster) check(t testing.TB, log *fakeLog) {
	t.Helper()
	all := c.records(t)
	type placed struct {
		pos, row uint64
	}
	seen := make(map[placed]got)
	for id, recs := range all {
		for i, r := range recs {
			if r.mark.N != uint64(i+1) {
				t.Fatalf("%s: record %d has n = %d", id, i+1, r.mark.N)
			}
			if i > 0 && recs[i-1].mark.Compare(r.mark.Place) >= 0 {
				t.Fatalf("%s: %v after %v", id, r.mark, recs[i-1].mark)
			}
			at := placed{r.mark.Pos, r.mark.Row}
			if _, twice := seen[at]; twice {
				t.Fatalf("%v twice", at)
			}
			seen[at] = r
		}
	}
	total := 0
	for _, tx := range log.txs {
		row := uint64(0)
		last := make(map[PartitionID]uint64)
		expect := func(table string, key int64, op byte, part int32) {
			row++
			total++
			r, ok := seen[placed{tx.order.Pos, row}]
			wantKey := string(schemas.AppendLong(nil, key))
			if op == 't' {
				wantKey = ""
			}
			if !ok || r.op != op || r.key != wantKey || r.Topic != "p.public."+table || part >= 0 && r.Number != part {
				t.Fatalf("transaction %d row %d: got %+v, want %c of %d in %s", tx.order.Pos, row, r, op, key, table)
			}
			last[r.PartitionID] = row
		}
		for _, r := range tx.rows {
			switch r.op {
			case 't':
				for p := range int32(3) {
					expect(r.table, 0, 't', p)
				}
			case 'd':
				expect(r.table, r.key, 'd', -1)
				expect(r.table, r.key, 0, -1)
			default:
				expect(r.table, r.key, r.op, -1)
			}
		}
		row++
		total++
		end := seen[placed{tx.order.Pos, row}]
		if end.op != opEnd || end.Topic != "p.transaction" || len(end.end) != len(last) {
			t.Fatalf("transaction %d ends with %+v, touched %v", tx.order.Pos, end, last)
		}
		for _, p := range end.end {
			if last[PartitionID{p.Topic, p.Partition}] != p.Row {
				t.Fatalf("transaction %d: END says %+v, touched %v", tx.order.Pos, p, last)
			}
		}
	}
	if len(seen) != total {
		t.Fatalf("%d records, %d expected", len(seen), total)
	}
}
