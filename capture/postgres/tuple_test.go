package postgres

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// appender is an Emitter that takes changes as the pipeline does: it copies them.
type appender struct {
	routes  map[string]*capture.Route
	tables  map[string]*schemas.Table
	batch   []byte
	changes int
}

func newAppender(tables ...*testTable) *appender {
	a := &appender{batch: make([]byte, 0, 8<<10), routes: map[string]*capture.Route{}, tables: map[string]*schemas.Table{}}
	for _, t := range tables {
		a.tables[t.table.Name] = &t.table
	}
	return a
}

func (a *appender) Begin(*capture.Tx) error { return nil }

func (a *appender) Table(_ context.Context, v *capture.TableVersion) (*capture.Route, error) {
	r := &capture.Route{Table: a.tables[v.Name], KeyID: 1, ValueID: 2}
	a.routes[v.Name] = r
	return r, nil
}

func (a *appender) Change(_ context.Context, c *capture.Change) error {
	a.changes++
	a.batch = append(append(a.batch[:0], c.Key...), c.Value...)
	return nil
}

func (a *appender) Commit(context.Context, capture.Position) error     { return nil }
func (a *appender) Idle(context.Context, capture.Position, bool) error { return nil }
func (a *appender) Wait()                                              {}
func (a *appender) Resume()                                            {}

// wideTable has a column of each kind that has an encoder of its own.
func wideTable(identity byte) *testTable {
	return newTestTable(7, "wide", identity, col("id", "int8 key"), col("b", "bool"), col("s", "int2 null"), col("i", "int4"),
		col("f", "float4"), col("g", "float8"), col("n", "numeric(12,2)"), col("vn", "numeric"), col("t", "text null"), col("by", "bytea"),
		col("d", "date"), col("tm", "time"), col("ts", "timestamp(3)"), col("tz", "timestamptz"), col("ttz", "timetz"), col("iv", "interval"),
		col("u", "uuid"), col("j", "jsonb"), col("m", "mood(sad,ok)"), col("a", "text[]"), col("ia", "int4[] null"), col("z", "text null"))
}

func wideRow(id string) []string {
	return []string{id, "t", "-7", "123456", "1.5", "3.141592653589793", "12345.67", "1.500", "some text", `\x00ff`, "2024-05-06",
		"07:08:09.5", "2024-05-06 07:08:09.123", "2024-05-06 07:08:09.123456+00", "07:08:09+02", "1 day 02:03:04",
		"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", `{"a": 1}`, "ok", `{a,"b c",NULL}`, "{1,2,3}", nullValue}
}

func changesOf(identity byte, id string) map[string][]byte {
	row := wideRow(id)
	if identity == identityFull {
		return map[string][]byte{"insert": insertMessage(7, row...), "update": updateMessage(7, 'O', row, row), "delete": deleteMessage(7, 'O', row...)}
	}
	key := make([]string, len(row))
	for i := range key {
		key[i] = nullValue
	}
	key[0] = id
	return map[string][]byte{"insert": insertMessage(7, row...), "update": updateMessage(7, 0, nil, row), "delete": deleteMessage(7, 'K', key...)}
}

func TestRowsAllocateNothing(t *testing.T) {
	for _, identity := range []byte{identityDefault, identityFull} {
		table := wideTable(identity)
		a := newAppender(table)
		s := newTestStream(t, a, table)
		ctx := t.Context()
		if err := send(ctx, s, table.message(), beginMessage(5, 0, 1)); err != nil {
			t.Fatal(err)
		}
		for name, m := range changesOf(identity, "42") {
			data := logData(77, m)
			changes := a.changes
			n := testing.AllocsPerRun(100, func() {
				if err := s.message(ctx, 'd', data); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 || a.changes == changes {
				t.Errorf("%s with identity %c: %v allocations a row, %d changes", name, identity, n, a.changes-changes)
			}
		}
	}
}

func TestTruncatedMessagesAreErrors(t *testing.T) {
	table := wideTable(identityFull)
	for name, m := range changesOf(identityFull, "42") {
		for n := range len(m) {
			r := rowMessage{old: make([]field, len(table.columns)), new: make([]field, len(table.columns))}
			if err := r.split(m[:n:n]); err == nil {
				t.Errorf("%s cut to %d bytes was taken", name, n)
			}
		}
	}
}

// Whatever the bytes: no panic, every field within them, and errors that stop.
func FuzzTuple(f *testing.F) {
	table := wideTable(identityFull)
	for _, m := range changesOf(identityFull, "42") {
		f.Add(m)
	}
	for _, m := range changesOf(identityDefault, "1") {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) == 0 {
			return
		}
		n := len(table.columns)
		r := rowMessage{old: make([]field, n), new: make([]field, n)}
		if m[0] == 'I' || m[0] == 'U' || m[0] == 'D' {
			if err := r.split(m); err == nil {
				checkFields(t, &r, m)
			}
		}
		s := newTestStream(t, newAppender(table), table)
		if err := send(t.Context(), s, table.message(), beginMessage(5, 0, 1)); err != nil {
			t.Fatal(err)
		}
		var own *Error
		if err := send(t.Context(), s, m); err != nil && !errors.As(err, &own) {
			t.Errorf("%x: %v does not say what it allows", m, err)
		}
	})
}

// checkFields puts the message together again from what was split.
func checkFields(t *testing.T, r *rowMessage, m []byte) {
	again := append([]byte(nil), m[:rowHeader]...)
	if r.oldTag != 0 {
		again = append(append(again, r.oldTag), tuple(texts(m, r.old)...)...)
	}
	if m[0] != 'D' {
		again = append(append(again, 'N'), tuple(texts(m, r.new)...)...)
	}
	if !bytes.Equal(again, m) {
		t.Errorf("%x was split into what makes %x", m, again)
	}
}

func texts(m []byte, fields []field) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		switch f.start {
		case fieldNull:
			out[i] = nullValue
		case fieldUnchanged:
			out[i] = unchangedValue
		default:
			out[i] = string(m[f.start:f.end])
		}
	}
	return out
}

func FuzzRelation(f *testing.F) {
	f.Add(wideTable(identityDefault).message())
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) == 0 {
			return
		}
		rel, err := parseRelation(m)
		if err == nil && len(rel.hash()) != 64 {
			t.Errorf("hash %q", rel.hash())
		}
	})
}

// ordersBench is the table of thirteen columns that figures are given for.
func ordersBench() (*testTable, []string) {
	table := newTestTable(7, "orders", identityDefault, col("id", "int8 key"), col("customer", "int8"), col("status", "text"), col("sku", "varchar(20) null"),
		col("amount", "numeric(12,2)"), col("tax", "numeric(12,2) null"), col("quantity", "int4"), col("created", "timestamptz"), col("updated", "timestamptz null"),
		col("due", "date null"), col("paid", "bool"), col("ref", "uuid"), col("detail", "jsonb null"))
	detail := `{"a": "` + string(bytes.Repeat([]byte("x"), 190)) + `"}`
	return table, []string{"123456789", "4242", "shipped", "SKU-1234567", "12345.67", "2345.67", "3", "2024-05-06 07:08:09.123456+00",
		"2024-05-07 07:08:09.123456+00", "2024-06-01", "t", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", detail}
}

func BenchmarkSplit(b *testing.B) {
	table, row := ordersBench()
	m := insertMessage(7, row...)
	r := rowMessage{old: make([]field, len(table.columns)), new: make([]field, len(table.columns))}
	b.ReportAllocs()
	for b.Loop() {
		if err := r.split(m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRow(b *testing.B) {
	table, row := ordersBench()
	a := newAppender(table)
	s := newTestStream(b, a, table)
	m := insertMessage(7, row...)
	if err := send(b.Context(), s, table.message(), beginMessage(5, 0, 1), m); err != nil {
		b.Fatal(err)
	}
	rel := s.relations[7]
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, _, err = rel.plan.appendRow(dst[:0], m, rel.new); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(dst)), "bytes/row")
}

func BenchmarkInsert(b *testing.B) {
	table, row := ordersBench()
	benchmarkMessage(b, table, insertMessage(7, row...))
}

func BenchmarkUpdate(b *testing.B) {
	table, row := ordersBench()
	benchmarkMessage(b, table, updateMessage(7, 0, nil, row))
}

func BenchmarkDelete(b *testing.B) {
	table, row := ordersBench()
	key := make([]string, len(row))
	for i := range key {
		key[i] = nullValue
	}
	key[0] = row[0]
	benchmarkMessage(b, table, deleteMessage(7, 'K', key...))
}

func BenchmarkInsertWide(b *testing.B) {
	benchmarkMessage(b, wideTable(identityDefault), insertMessage(7, wideRow("42")...))
}

// benchmarkMessage measures from the CopyData message to the Emitter, which copies.
func benchmarkMessage(b *testing.B, table *testTable, m []byte) {
	a := newAppender(table)
	s := newTestStream(b, a, table)
	ctx := b.Context()
	if err := send(ctx, s, table.message(), beginMessage(5, 0, 1)); err != nil {
		b.Fatal(err)
	}
	data := logData(77, m)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.message(ctx, 'd', data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(a.batch)), "bytes/record")
}
