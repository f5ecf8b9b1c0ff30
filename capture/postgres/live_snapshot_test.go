package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// snapshot prepares the slot with a snapshot, calls between, and reads the snapshot and
// then the log.
func (l *live) snapshot(anew bool, between func()) {
	l.t.Helper()
	if err := l.trySnapshot(anew, between); err != nil {
		l.t.Fatal(err)
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	l.ended = make(chan error, 1)
	l.rec.confirm = l.source.Confirm
	from := l.rec.pos
	go func() { l.ended <- l.source.Run(ctx, from, l.rec) }()
}

func (l *live) trySnapshot(anew bool, between func()) error {
	l.t.Helper()
	src, err := New(l.cfg)
	if err != nil {
		return err
	}
	l.source = src
	closing := true
	defer func() {
		if closing {
			if err := src.Close(); err != nil {
				l.t.Errorf("close: %v", err)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	if _, err := src.Inspect(ctx); err != nil {
		return err
	}
	at, _, err := src.Prepare(ctx, true)
	if err != nil {
		return err
	}
	if between != nil {
		between()
	}
	if err := src.Snapshot(ctx, anew, l.rec); err != nil {
		l.rec.open = false
		return err
	}
	if l.rec.pos != at && len(l.rec.lines) > 0 {
		l.t.Errorf("the snapshot ends at %d, the slot begins at %d", l.rec.pos.Offset, at.Offset)
	}
	l.rec.pos = at
	closing = false
	return nil
}

// Several tables without a key at once, while everything is written: rows of the snapshot
// with the log's changes after them give the tables as they are.
func TestLiveSnapshotWhileWriting(t *testing.T) {
	statements := []string{"CREATE TABLE keyless (id int, n int)", "ALTER TABLE keyless REPLICA IDENTITY FULL", "INSERT INTO keyless SELECT i, 0 FROM generate_series(1, 5000) i"}
	for i := range 4 {
		statements = append(statements, fmt.Sprintf("CREATE TABLE t%d (id int, n int, fill text)", i),
			fmt.Sprintf("ALTER TABLE t%d REPLICA IDENTITY FULL", i), fmt.Sprintf("INSERT INTO t%d SELECT i, 0, repeat('x', 50) FROM generate_series(1, 8000) i", i))
	}
	l := newLive(t, testenv.SharedPostgres(t), append(statements, "CREATE TABLE void (id int PRIMARY KEY)")...)
	l.cfg.SnapshotReaders = 3
	fold := newFold(t)
	l.rec.quiet, l.rec.onRaw = true, func(c *capture.Change) { fold.add(l.rec, c) }
	ctx, cancel := context.WithCancel(t.Context())
	written := make(chan error, 1)
	write := func() {
		sql := l.server.Connect(t, l.db)
		go func() {
			for i := 1; ctx.Err() == nil; i++ {
				_, err := sql.Exec(t.Context(), fmt.Sprintf(`UPDATE t%d SET n = %d WHERE id %% 97 = %d; DELETE FROM t%d WHERE id = %d;
					INSERT INTO t%d VALUES (%d, 1, 'new'); UPDATE t%d SET id = id + 20000 WHERE id = %d; UPDATE keyless SET n = n + 1 WHERE id %% 500 = %d`,
					i%4, i, i%97, i%4, i, i%4, 100000+i, i%4, 4000+i, i%500))
				if err != nil {
					written <- err
					return
				}
			}
			written <- nil
		}()
	}
	l.snapshot(true, write)
	cancel()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	l.exec("INSERT INTO void VALUES (1)")
	l.wait("the last row", func() bool { return len(fold.rows["void"]) == 1 })
	l.stop()
	if fold.reads < 30000 || fold.ops['t'] != 6 {
		t.Errorf("%d rows read, %d TRUNCATEs", fold.reads, fold.ops['t'])
	}
	for _, table := range []string{"t0", "t1", "t2", "t3", "keyless"} {
		fold.compare(l, table)
	}
}

// fold gathers what changes leave of tables: counted rows, as JSON.
type fold struct {
	t     *testing.T
	rows  map[string]map[string]int
	byKey map[string]string
	reads int
	ops   map[byte]int
}

func newFold(t *testing.T) *fold {
	return &fold{t: t, rows: map[string]map[string]int{}, byKey: map[string]string{}, ops: map[byte]int{}}
}

func (f *fold) add(r *recorder, c *capture.Change) {
	table := c.Route.Table.Name
	if f.rows[table] == nil {
		f.rows[table] = map[string]int{}
	}
	f.ops[c.Op]++
	if c.Op == 0 || c.Op == 't' {
		return
	}
	if c.Op == 'r' {
		f.reads++
	}
	value := r.native(c.Value, false).(map[string]any)
	before, after := text(value["before"]), text(value["after"])
	if c.Key != nil {
		key := table + r.decode(c.Key, true)
		before = f.byKey[key]
		delete(f.byKey, key)
		if c.Op != 'd' {
			f.byKey[key] = after
		}
	}
	if before != "null" && before != "" {
		if f.rows[table][before]--; f.rows[table][before] == 0 {
			delete(f.rows[table], before)
		}
	}
	if c.Op != 'd' {
		f.rows[table][after]++
	}
}

// compare compares a table's rows with those of the database.
func (f *fold) compare(l *live, table string) {
	f.t.Helper()
	rows, err := l.sql.Query(context.Background(), "SELECT to_jsonb(x)::text FROM "+table+" x")
	if err != nil {
		f.t.Fatal(err)
	}
	want := map[string]int{}
	var row string
	_, err = pgx.ForEachRow(rows, []any{&row}, func() error {
		var v any
		d := json.NewDecoder(strings.NewReader(row))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return err
		}
		want[text(v)]++
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if !maps.Equal(want, f.rows[table]) {
		f.t.Errorf("%s: %d different rows, want %d", table, len(f.rows[table]), len(want))
		for r, n := range want {
			if f.rows[table][r] != n {
				f.t.Errorf("for example %s: %d times, want %d", r, f.rows[table][r], n)
				return
			}
		}
	}
}

// What cannot be read is said before the slot is made, with what to do.
func TestLiveSnapshotPrivileges(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE open (id int)", "CREATE SCHEMA hr",
		`CREATE TABLE hr."Pay" (id int PRIMARY KEY, v int)`, "CREATE TABLE secret (id int)", "INSERT INTO open VALUES (1)", "INSERT INTO secret VALUES (1)")
	user := strings.ReplaceAll(testenv.Unique("r"), "-", "_")
	l.exec("CREATE ROLE "+user+" LOGIN REPLICATION PASSWORD '"+canary+"'",
		"CREATE PUBLICATION "+quoteIdent(l.cfg.Publication)+" FOR ALL TABLES", "GRANT SELECT ON open TO "+user)
	t.Cleanup(func() { l.exec("DROP OWNED BY "+user, "DROP ROLE "+user) })
	l.cfg.URL, l.cfg.CreatePublication = l.server.URL(user, canary, l.db), false

	wantNoSlot := func() {
		t.Helper()
		var slots int
		if err := l.sql.QueryRow(t.Context(), "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", l.cfg.Slot).Scan(&slots); err != nil || slots != 0 {
			t.Errorf("%d slots, %v", slots, err)
		}
	}
	err := l.trySnapshot(false, nil)
	wantStop(t, err, "may not read 2 of the tables", `GRANT USAGE ON SCHEMA "hr", "public" TO "`+user+`"; GRANT SELECT ON "hr"."Pay", "public"."secret" TO "`+user+`"`)
	if capture.CodeOf(err) != capture.CodeEnvironment {
		t.Errorf("exit code %d", capture.CodeOf(err))
	}
	wantNoSlot()
	l.exec("GRANT USAGE ON SCHEMA hr TO "+user, `GRANT SELECT (id, v) ON hr."Pay" TO `+user, "GRANT SELECT ON secret TO "+user,
		"ALTER TABLE secret ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON secret USING (false)")
	wantStop(t, l.trySnapshot(false, nil), "row-level security hides rows of public.secret", "BYPASSRLS")
	wantNoSlot()
	l.exec("ALTER ROLE " + user + " BYPASSRLS")
	l.snapshot(false, nil)
	l.stop()
	if got := len(l.changes()); got != 2 {
		t.Errorf("%d rows read", got)
	}
}

// If all tables have a key, no transaction is kept open for a snapshot, and there are only
// TRUNCATEs, where rows of another may stand.
func TestLiveSnapshotKeyed(t *testing.T) {
	for _, anew := range []bool{false, true} {
		l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int)",
			"CREATE UNIQUE INDEX b_id ON b (id)", "ALTER TABLE b ALTER id SET NOT NULL", "ALTER TABLE b REPLICA IDENTITY USING INDEX b_id", "INSERT INTO a VALUES (1)")
		l.snapshot(anew, func() {
			if n := l.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND backend_xmin IS NOT NULL", "tailrace "+l.cfg.Name); n != 0 {
				t.Errorf("%d sessions keep a snapshot", n)
			}
		})
		l.exec("INSERT INTO b VALUES (1)")
		l.until("c public.b")
		l.stop()
		want := []string{"c public.b"}
		if anew {
			want = []string{"t public.a", "t public.b", "c public.b"}
		}
		var got []string
		for _, line := range l.changes() {
			line, _, _ = strings.Cut(line, " key=")
			got = append(got, line)
		}
		if !slices.Equal(got, want) {
			t.Errorf("anew %t: %q", anew, got)
		}
	}
}

// count asks for a number.
func (l *live) count(query string, args ...any) (n int) {
	l.t.Helper()
	if err := l.sql.QueryRow(l.t.Context(), query, args...).Scan(&n); err != nil {
		l.t.Fatal(err)
	}
	return n
}

// A table that was written anew after the slot was made looks empty in its snapshot: the
// snapshot fails, and a new one has the rows.
func TestLiveSnapshotRewritten(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int, v int)", "ALTER TABLE t REPLICA IDENTITY FULL", "INSERT INTO t VALUES (1, 2)")
	err := l.trySnapshot(false, func() { l.exec("ALTER TABLE t ALTER v TYPE bigint") })
	if err == nil || capture.IsFatal(err) || !strings.Contains(err.Error(), "table public.t was rewritten") {
		t.Fatalf("got %v", err)
	}
	if err := l.discard(); err != nil {
		t.Fatal(err)
	}
	l.snapshot(true, nil)
	l.stop()
	got := l.changes()
	if len(got) != 2 || !strings.HasPrefix(got[0], "t public.t") || !strings.HasPrefix(got[1], `r public.t key=none before=null after={"id":1,"v":2}`) {
		t.Errorf("got %q", got)
	}
}

func (l *live) discard() error {
	src, err := New(l.cfg)
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := src.Inspect(l.t.Context()); err != nil {
		return err
	}
	return src.Discard(l.t.Context())
}

func TestLiveDiscard(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY)")
	src, err := New(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := src.Discard(t.Context()); err != nil {
		t.Errorf("without a slot: %v", err)
	}
	l.exec("SELECT pg_create_logical_replication_slot('" + l.cfg.Slot + "', 'test_decoding')")
	wantStop(t, src.Discard(t.Context()), "is not dropped", "another slot name")
	l.exec("SELECT pg_drop_replication_slot('" + l.cfg.Slot + "')")
	l.start()
	l.exec("INSERT INTO t VALUES (1)")
	l.until("c public.t")
	wantStop(t, src.Discard(t.Context()), "is in use by process", "pg_terminate_backend")
	l.stop()
	if err := l.discard(); err != nil {
		t.Error(err)
	}
}

// A snapshot that is stopped in the middle ends at once, and its connections with it.
func TestLiveSnapshotStopped(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int, v text)", "ALTER TABLE t REPLICA IDENTITY FULL",
		"INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 30000) i")
	boom := errors.New("boom")
	rows := 0
	l.rec.quiet = true
	l.rec.onChange = func() {
		if rows++; rows == 500 {
			l.rec.fail = boom
		}
	}
	if err := l.trySnapshot(false, nil); err != boom {
		t.Errorf("got %v", err)
	}
	if rows > 500 {
		t.Errorf("%d rows after the error", rows-500)
	}
	err := l.eventually(func() (bool, error) {
		var n int
		err := l.sql.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", "tailrace "+l.cfg.Name).Scan(&n)
		return n == 0, fmt.Errorf("%d connections: %w", n, err)
	})
	if err != nil {
		t.Error(err)
	}
}
