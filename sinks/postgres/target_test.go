package postgres

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/sinktest"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// bench is a broker, a capture that the test plays, and a database to write to.
type bench struct {
	*testing.T
	*sinktest.Writer
	source subscribe.Config
	pg     *testenv.Postgres
	db     string
	conn   *pgx.Conn
	url    string
}

func newBench(t *testing.T) *bench { return benchOn(t, testenv.SharedPostgres(t)) }

func benchOn(t *testing.T, pg *testenv.Postgres) *bench {
	src := source(t)
	db := pg.CreateDatabase(t)
	return &bench{T: t, Writer: sinktest.NewWriter(t, src, "shop"), source: src, pg: pg, db: db, conn: pg.Connect(t, db), url: pg.AdminURL(db)}
}

func (b *bench) exec(sql ...string) {
	b.Helper()
	if err := b.pg.Exec(context.Background(), b.db, sql...); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) config() sinks.Config {
	return sinks.Config{
		Name: "s", Prefix: "shop", Source: b.source, Monitor: sinks.NewMonitor("s", nil), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Sink: func() (sinks.Sink, error) { return New(Config{Name: "s", URL: b.url}) },
	}
}

// start runs a sink; stop ends it and returns what it said, ended waits until it ends.
func (b *bench) start() (stop, ended func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var said error
	cfg := b.config()
	go func() {
		defer close(done)
		said = sinks.Run(ctx, cfg)
	}()
	stop = func() error {
		cancel()
		<-done
		return said
	}
	ended = func() error {
		b.Helper()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			b.Fatal("the sink goes on")
		}
		return said
	}
	b.Cleanup(func() { stop() })
	return stop, ended
}

// fails runs a sink until it fails, and checks that its error is fatal and says these words,
// in the message or the hint.
func (b *bench) fails(words ...string) {
	b.Helper()
	_, ended := b.start()
	err := ended()
	if err == nil || !sinks.IsFatal(err) {
		b.Fatalf("the sink says %v, want a fatal error", err)
	}
	text := err.Error() + " HINT " + sinks.HintOf(err)
	for _, w := range words {
		if !strings.Contains(text, w) {
			b.Errorf("error %q does not say %q", text, w)
		}
	}
}

func (b *bench) want(table string, rows ...string) {
	b.Helper()
	slices.Sort(rows)
	var got []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if got = readTable(b, b.conn, table); slices.Equal(got, rows) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	b.Fatalf("%s reads %q, want %q", table, got, rows)
}

func intTable(name string, columns ...string) *schemas.Table {
	t := &schemas.Table{Namespace: "public", Name: name, Key: []int{0}}
	for i, c := range columns {
		t.Columns = append(t.Columns, schemas.Column{Name: c, Type: schemas.Type{Kind: schemas.Int32}, Nullable: i > 0})
	}
	return t
}

func create(t *sinktest.Table, row ...any) sinktest.Change {
	return sinktest.Change{Table: t, Op: 'c', Row: row}
}

func update(t *sinktest.Table, row ...any) sinktest.Change {
	return sinktest.Change{Table: t, Op: 'u', Row: row}
}

func remove(t *sinktest.Table, row ...any) sinktest.Change {
	return sinktest.Change{Table: t, Op: 'd', Row: row}
}

// Every type, its extremes, and the type of the column that is made for it.
func TestTypes(t *testing.T) {
	b := newBench(t)
	cases := []struct {
		typ  schemas.Type
		made string
		in   []any
		want []string
	}{
		{schemas.Type{Kind: schemas.Bool}, "boolean", []any{true, false}, []string{"true", "false"}},
		{schemas.Type{Kind: schemas.Int16}, "smallint", []any{-32768}, []string{"-32768"}},
		{schemas.Type{Kind: schemas.Int64}, "bigint", []any{-1 << 63, 1<<63 - 1}, []string{"-9223372036854775808", "9223372036854775807"}},
		{schemas.Type{Kind: schemas.Float32}, "real", []any{1.5e-20}, []string{"1.5e-20"}},
		{schemas.Type{Kind: schemas.Float64}, "double precision", []any{-0.1}, []string{"-0.1"}},
		{schemas.Type{Kind: schemas.Decimal, Precision: 10, Scale: 2}, "numeric", []any{"-0.05", "12345678.90"}, []string{"-0.05", "12345678.90"}},
		{schemas.Type{Kind: schemas.Decimal, Precision: 40, Scale: 3}, "numeric", []any{"-1234567890123456789012345678901234567.890"}, []string{"-1234567890123456789012345678901234567.890"}},
		{schemas.Type{Kind: schemas.VarDecimal}, "numeric", []any{"1.500", "-3"}, []string{"1.5", "-3"}},
		{schemas.Type{Kind: schemas.String}, "text", []any{"\\N\t\r\n\"'é\x01", "\\."}, []string{"\\N\t\r\n\"'é\x01", "\\."}},
		{schemas.Type{Kind: schemas.Bytes}, "bytea", []any{"\x00\xff\\", ""}, []string{`\x00ff5c`, `\x`}},
		{schemas.Type{Kind: schemas.Date}, "date", []any{0, -719528, 2932896, -719893}, []string{"1970-01-01", "0001-01-01 BC", "9999-12-31", "0002-01-01 BC"}},
		{schemas.Type{Kind: schemas.Time, Precision: 6}, "time without time zone", []any{1, 86_400_000_000}, []string{"00:00:00.000001", "24:00:00"}},
		{schemas.Type{Kind: schemas.Timestamp, Precision: 6}, "timestamp without time zone", []any{-1, schemas.TimestampInfinity, schemas.TimestampNegativeInfinity}, []string{"1969-12-31 23:59:59.999999", "infinity", "-infinity"}},
		{schemas.Type{Kind: schemas.Timestamp, Precision: 3}, "timestamp without time zone", []any{-1000, schemas.TimestampInfinity}, []string{"1969-12-31 23:59:59.999", "infinity"}},
		{schemas.Type{Kind: schemas.ZonedTimestamp, Precision: 6}, "timestamp with time zone",
			[]any{0, "infinity", "-infinity", "+12345-01-01T00:00:00Z", "-0043-03-15T00:00:00Z", "0000-01-01T00:00:00Z"},
			[]string{"1970-01-01 00:00:00+00", "infinity", "-infinity", "12345-01-01 00:00:00+00", "0044-03-15 00:00:00+00 BC", "0001-01-01 00:00:00+00 BC"}},
		{schemas.Type{Kind: schemas.Interval}, "interval", []any{-3_600_000_001, 90_000_000_000_000_000}, []string{"-01:00:00.000001", "25000000:00:00"}},
		{schemas.Type{Kind: schemas.UUID}, "uuid", []any{"b68a35a7-17ad-35b3-af2a-ae46edb4545a"}, []string{"b68a35a7-17ad-35b3-af2a-ae46edb4545a"}},
		{schemas.Type{Kind: schemas.JSON}, "jsonb", []any{`{"a": "\\\t\""}`}, nil},
		{schemas.Type{Kind: schemas.Array, Elem: &schemas.Type{Kind: schemas.String}}, "text[]", []any{[]any{"a", nil, `",{}\`, "NULL", ""}, []any{}}, []string{`{a,NULL,"\",{}\\","NULL",""}`, "{}"}},
	}
	for i, c := range cases {
		name := fmt.Sprintf("t%d", i)
		tab := b.Table(&schemas.Table{Namespace: "public", Name: name, Key: []int{0}, Columns: []schemas.Column{
			{Name: "id", Type: schemas.Type{Kind: schemas.Int32}}, {Name: "v", Type: c.typ, Nullable: true},
		}}, 1)
		changes := []sinktest.Change{create(tab, -1, nil)}
		for k, v := range c.in {
			if c.want == nil {
				continue
			}
			changes = append(changes, create(tab, k, v))
		}
		b.Tx(changes...)
	}
	b.start()
	b.want(fmt.Sprintf("t%d", len(cases)-1), `-1|\N`, `0|["a", null, "\",{}\\", "NULL", ""]`, "1|[]")
	for i, c := range cases {
		rows, err := b.conn.Query(context.Background(), fmt.Sprintf("select v::text, pg_typeof(v)::text from t%d where id >= 0 order by id", i))
		if err != nil {
			t.Fatal(err)
		}
		var got, typ string
		k := 0
		if _, err := pgx.ForEachRow(rows, []any{&got, &typ}, func() error {
			if got != c.want[k] || typ != c.made {
				t.Errorf("type %d: %v came as %q of %s, want %q of %s", i, c.in[k], got, typ, c.want[k], c.made)
			}
			k++
			return nil
		}); err != nil || k != len(c.want) {
			t.Errorf("type %d: %d rows, %v", i, k, err)
		}
	}
}

func TestHostileNames(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{`a"; drop table x; --`, `sel'ect\`, "ünïcode", strings.Repeat("n", 63), "select", "MiXed"} {
		tab := b.Table(intTable(name, "id", "select"), 1)
		b.Tx(create(tab, 1, 2), create(tab, 2, 3), update(tab, 1, 5), remove(tab, 2, nil))
	}
	b.start()
	for _, name := range []string{`a"; drop table x; --`, `sel'ect\`, "ünïcode", strings.Repeat("n", 63), "select", "MiXed"} {
		b.want(name, "1|5")
	}
}

func TestNameTooLong(t *testing.T) {
	b := newBench(t)
	tab := b.Table(intTable("x", "id", strings.Repeat("c", 64)), 1)
	b.Tx(create(tab, 1, 2))
	b.fails("64 bytes", "rename")
}

// A column that is added with a default has it in the rows that were there.
func TestAddedColumnDefault(t *testing.T) {
	b := newBench(t)
	tab := b.Table(intTable("x", "id", "v"), 2)
	b.Tx(create(tab, 1, 10), create(tab, 2, 20))
	b.start()
	b.want("x", "1|10", "2|20")
	wide := intTable("x", "id", "v")
	for _, c := range []struct {
		kind schemas.Type
		text string
	}{
		{schemas.Type{Kind: schemas.String}, `it's \new`}, {schemas.Type{Kind: schemas.Bool}, "true"}, {schemas.Type{Kind: schemas.Int64}, "-7"},
		{schemas.Type{Kind: schemas.Decimal, Precision: 6, Scale: 2}, "-1.50"}, {schemas.Type{Kind: schemas.Date}, "2024-02-29"},
	} {
		wide.Columns = append(wide.Columns, schemas.Column{Name: fmt.Sprintf("c%d", len(wide.Columns)), Type: c.kind, Default: schemas.Default{Kind: schemas.ValueDefault, Text: c.text}})
	}
	wide.Columns = append(wide.Columns, schemas.Column{Name: "at", Type: schemas.Type{Kind: schemas.Timestamp, Precision: 6}, Nullable: true, Default: schemas.Default{Kind: schemas.FunctionDefault}})
	tab2 := b.Table(wide, 2)
	b.Tx(create(tab2, 3, 30, "own", false, 1, "0.01", 0, nil))
	b.want("x", `1|10|it's \new|true|-7|-1.50|2024-02-29|\N`, `2|20|it's \new|true|-7|-1.50|2024-02-29|\N`, `3|30|own|false|1|0.01|1970-01-01|\N`)
}

// Foreign keys, in the order of the target's catalog, and a trigger that fires.
func TestForeignKeysAndTriggers(t *testing.T) {
	b := newBench(t)
	b.exec(`create table parent (id int primary key, v int)`, `create table child (id int primary key, parent int references parent on delete cascade)`,
		`create table seen (n int)`, `create function note() returns trigger language plpgsql as $$ begin insert into seen values (new.id); return new; end $$`,
		`create trigger t after insert on child for each row execute function note()`)
	child := b.Table(intTable("child", "id", "parent"), 2)
	parent := b.Table(intTable("parent", "id", "v"), 2)
	b.Tx(create(parent, 1, 1), create(child, 10, 1), create(parent, 2, 2), create(child, 20, 2))
	b.start()
	b.want("child", "10|1", "20|2")
	b.Tx(update(parent, 1, 100), remove(child, 20, nil), remove(parent, 2, nil))
	b.want("parent", "1|100")
	b.want("child", "10|1")
	b.want("seen", "10", "20")
	b.Tx(sinktest.Change{Table: child, Op: 't'}, sinktest.Change{Table: parent, Op: 't'}, create(parent, 3, 3), create(child, 30, 3))
	b.want("child", "30|3")
	b.want("parent", "3|3")
}

func TestForeignKeyRefuses(t *testing.T) {
	b := newBench(t)
	b.exec(`create table parent (id int primary key)`, `create table child (id int primary key, parent int constraint whose references parent)`)
	b.Tx(create(b.Table(intTable("child", "id", "parent"), 1), 10, 1))
	b.fails("child", "whose", "capture the referenced table")
	b.want("child")
}

func TestTriggerRefuses(t *testing.T) {
	b := newBench(t)
	b.exec(`create table x (id int primary key, v int)`, `create function no() returns trigger language plpgsql as $$ begin raise exception 'not today'; end $$`,
		`create trigger t before insert on x for each row execute function no()`)
	b.Tx(create(b.Table(intTable("x", "id", "v"), 1), 1, 1))
	b.fails("not today", "trigger", "x")
	b.want("x")
}

// Two rows swap a unique value by way of a third: only the source's own order allows that.
func TestUniqueSwap(t *testing.T) {
	b := newBench(t)
	b.exec(`create table x (id int primary key, v int unique)`)
	tab := b.Table(intTable("x", "id", "v"), 1)
	b.Tx(create(tab, 1, 10), create(tab, 2, 20))
	b.start()
	b.want("x", "1|10", "2|20")
	b.Tx(update(tab, 1, 0), update(tab, 2, 10), update(tab, 1, 20))
	b.want("x", "1|20", "2|10")
}

func TestWrongColumnType(t *testing.T) {
	for _, rows := range []int{1, 200} { // few and many go different ways
		b := newBench(t)
		b.exec(`create table x (id int primary key, v int)`)
		tab := b.Table(&schemas.Table{Namespace: "public", Name: "x", Key: []int{0}, Columns: []schemas.Column{
			{Name: "id", Type: schemas.Type{Kind: schemas.Int32}}, {Name: "v", Type: schemas.Type{Kind: schemas.String}},
		}}, 1)
		b.Tx(create(tab, 0, "5"))
		stop, _ := b.start()
		b.want("x", "0|5")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		b.Begin()
		for i := range rows {
			c := create(tab, i+1, "five")
			b.Write(&c)
		}
		b.End()
		b.Flush()
		b.fails(`"public"."x"`, "five", "TYPE")
		b.want("x", "0|5")
		b.exec(`alter table x alter v type text`)
		_, _ = b.start()
		for deadline := time.Now().Add(10 * time.Second); len(readTable(b, b.conn, "x")) != rows+1; {
			if time.Now().After(deadline) {
				t.Fatal("the rows did not come once the type was mended")
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

func TestMissingPrivileges(t *testing.T) {
	b := newBench(t)
	role := testenv.Unique("sink")
	b.exec(fmt.Sprintf(`create role %s login password 'x'`, quoteIdent(role)), `create table x (id int primary key, v int)`)
	b.Cleanup(func() { b.exec("drop owned by "+quoteIdent(role), "drop role "+quoteIdent(role)) })
	b.url = b.pg.URL(role, "x", b.db)
	b.Tx(create(b.Table(intTable("x", "id", "v"), 1), 1, 1))
	b.fails("GRANT CREATE ON DATABASE", role)
	b.exec(fmt.Sprintf("create schema tailrace authorization %s", quoteIdent(role)))
	b.fails("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE", `"public"."x"`)
	b.exec(fmt.Sprintf("grant select, insert, update, delete on x to %s", quoteIdent(role)))
	b.start()
	b.want("x", "1|1")
}

func TestNoKeyInTarget(t *testing.T) {
	b := newBench(t)
	b.exec(`create table x (id int, v int)`)
	b.Tx(create(b.Table(intTable("x", "id", "v"), 1), 1, 1))
	b.fails("ADD PRIMARY KEY", `"id"`)
}

// A table that is gone although rows were written to it is not made again, empty; a person may
// have all that the topics hold applied again.
func TestTableGone(t *testing.T) {
	b := newBench(t)
	tab := b.Table(intTable("x", "id", "v"), 1)
	b.Tx(create(tab, 1, 1))
	stop, _ := b.start()
	b.want("x", "1|1")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b.exec("drop table x")
	b.Tx(create(tab, 2, 2))
	_, ended := b.start()
	err := ended()
	if ways := sinks.WaysOf(err); err == nil || !strings.Contains(err.Error(), "gone from the target") || len(ways) != 1 || ways[0].Flag != sinks.WayBeginning {
		t.Fatalf("%v leads on by %v", err, ways)
	}
	var told *sinks.Effect
	err = sinks.Resolve(t.Context(), b.config(), sinks.Decision{FromBeginning: true}, func(_ context.Context, e *sinks.Effect) error { told = e; return nil })
	if err != nil || len(told.Partitions) != 2 || told.Partitions[0].Again != 1 || told.Partitions[0].To != 0 {
		t.Fatalf("%v: %+v", err, told)
	}
	b.start()
	b.want("x", "1|1", "2|2")
}

// A TRUNCATE of a table that never had a row makes no table; the first row does.
func TestTruncateBeforeRows(t *testing.T) {
	b := newBench(t)
	tab := b.Table(intTable("x", "id", "v"), 2)
	other := b.Table(intTable("y", "id", "v"), 1)
	b.Tx(sinktest.Change{Table: tab, Op: 't'}, create(other, 1, 1))
	b.start()
	b.want("y", "1|1")
	b.Tx(create(tab, 2, 2))
	b.want("x", "2|2")
}

// Tables without a key: rows are added; one that looks like the old one goes.
func TestWithoutKey(t *testing.T) {
	b := newBench(t)
	x := intTable("x", "a", "b")
	x.Key = nil
	tab := b.Table(x, 1)
	b.Tx(create(tab, 1, 1), create(tab, 1, 1), create(tab, 2, nil), create(tab, 3, 3))
	b.start()
	b.want("x", "1|1", "1|1", `2|\N`, "3|3")
	b.Tx(remove(tab, 1, 1), remove(tab, 2, nil), create(tab, 4, 4))
	b.want("x", "1|1", "3|3", "4|4")
	b.Tx(sinktest.Change{Table: tab, Op: 't'})
	b.want("x")
}

// The target goes down and comes back: nothing is lost, nothing is there twice.
func TestTargetDown(t *testing.T) {
	pg := testenv.NewPostgres(t, testenv.PGOptions{})
	b := benchOn(t, pg)
	x := intTable("x", "id", "v")
	x.Key = nil // rows that come twice would be seen
	tab := b.Table(x, 1)
	b.Tx(create(tab, 1, 1))
	_, ended := b.start()
	b.want("x", "1|1")
	if err := pg.Stop(context.Background(), "immediate"); err != nil {
		t.Fatal(err)
	}
	b.Tx(create(tab, 2, 2))
	if err := ended(); err == nil || sinks.IsFatal(err) {
		t.Fatalf("the sink says %v when the target goes down, want an error after which it is started again", err)
	}
	_, ended = b.start()
	if err := ended(); err == nil || sinks.IsFatal(err) || sinks.HintOf(err) == "" || sinks.CodeOf(err) != sinks.CodeEnvironment {
		t.Fatalf("the sink says %v when the target is down, hint %q", err, sinks.HintOf(err))
	}
	if err := pg.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.conn = pg.Connect(t, b.db)
	b.start()
	b.want("x", "1|1", "2|2")
}

func TestBadConfig(t *testing.T) {
	for _, c := range []Config{{Name: "", URL: "postgres://x"}, {Name: "s", URL: "nonsense://"}} {
		if _, err := New(c); err == nil || !sinks.IsFatal(err) || sinks.CodeOf(err) != sinks.CodeConfig || sinks.HintOf(err) == "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
