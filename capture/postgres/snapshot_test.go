package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/capture"
)

func ordersSnapshot(tb testing.TB, out capture.Emitter) (*snapshotWriter, *readTable) {
	table := ordersTable(identityDefault)
	t := &readTable{tableName: tableName{"public", "orders"}, oid: table.id}
	var err error
	if t.rel, err = parseRelation(table.message()); err != nil {
		tb.Fatal(err)
	}
	return &snapshotWriter{stream: newTestStream(tb, out, table), lsn: 5000, tables: 1}, t
}

func orderText(id, name string) string {
	return id + "\t" + name + "\t12.34\t\\N\t2024-05-06 07:08:09.5+00\t{a,NULL,\"b\\\\\\\\c\"}\n"
}

func TestSnapshotRows(t *testing.T) {
	r := newRecorder(t)
	w, table := ordersSnapshot(t, r)
	if err := w.truncate(t.Context(), true, []*readTable{table}); err != nil {
		t.Fatal(err)
	}
	blocks := []*block{
		{table: table, first: true, rows: []byte(orderText("1", `a\tb`) + orderText("2", `\N`))},
		{table: table, last: true, rows: []byte(strings.Replace(orderText("3", "c"), "12.34", `\N`, 1))}, // NOT NULL only since
	}
	for _, b := range blocks {
		if err := w.writeBlock(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.endPortion(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.done != 1 || w.total != 3 || len(w.active) != 0 {
		t.Errorf("%d tables done, %d rows, %d active", w.done, w.total, len(w.active))
	}
	golden(t, "snapshot.txt", strings.Join(r.lines, "\n")+"\n")
}

// A portion ends after so many rows, and the next one has the same place.
func TestSnapshotPortions(t *testing.T) {
	r := newRecorder(t)
	r.quiet = true
	w, table := ordersSnapshot(t, r)
	rows := strings.Repeat(orderText("1", "a"), portionRows+1)
	if err := w.writeBlock(t.Context(), &block{table: table, first: true, rows: []byte(rows)}); err != nil {
		t.Fatal(err)
	}
	var marks []string
	for _, line := range r.lines {
		if !strings.HasPrefix(line, "table ") {
			marks = append(marks, line)
		}
	}
	want := "begin snapshot:5000:1 pos=4999|commit 5000|begin snapshot:5000:2 pos=4999"
	if got := strings.Join(marks, "|"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSnapshotRefusesWhatIsNoRow(t *testing.T) {
	for _, text := range []string{"1\ta\n", "1", orderText("x", "a"), orderText("1", `\q`)} {
		w, table := ordersSnapshot(t, newRecorder(t))
		wantStop(t, w.writeBlock(t.Context(), &block{table: table, first: true, rows: []byte(text)}), "orders", "")
	}
}

// countingEmitter takes changes at no cost.
type countingEmitter struct {
	capture.Emitter
	changes int
}

func (e *countingEmitter) Begin(*capture.Tx) error { return nil }
func (e *countingEmitter) Change(context.Context, *capture.Change) error {
	e.changes++
	return nil
}
func (e *countingEmitter) Commit(context.Context, capture.Position) error { return nil }

func warmSnapshot(tb testing.TB) (w *snapshotWriter, b *block, text []byte) {
	w, table := ordersSnapshot(tb, newRecorder(tb))
	text = []byte(strings.Repeat(orderText("1", `a\\b`), 200))
	b = &block{table: table, rows: make([]byte, len(text))}
	copy(b.rows, text)
	if err := w.writeBlock(tb.Context(), b); err != nil {
		tb.Fatal(err)
	}
	w.out = &countingEmitter{Emitter: w.out}
	return w, b, text
}

func TestSnapshotRowsDoNotAllocate(t *testing.T) {
	w, b, text := warmSnapshot(t)
	n := testing.AllocsPerRun(100, func() {
		copy(b.rows, text)
		if err := w.writeBlock(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for 200 rows", n)
	}
	if got := w.out.(*countingEmitter).changes; got != 101*200 {
		t.Errorf("%d changes", got)
	}
}

func BenchmarkSnapshotRow(b *testing.B) {
	w, blk, text := warmSnapshot(b)
	b.SetBytes(int64(len(text) / 200))
	b.ReportAllocs()
	for b.Loop() {
		copy(blk.rows, text)
		if err := w.writeBlock(b.Context(), blk); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/200, "ns/row")
}

// Every now and then the log says how far each table is.
func TestSnapshotReport(t *testing.T) {
	w, table := ordersSnapshot(t, newRecorder(t))
	var said strings.Builder
	w.src.log = slog.New(slog.NewTextHandler(&said, nil))
	w.begun = time.Now().Add(-20 * time.Second)
	table.rows, table.estimate, w.total = 1000, 4000, 1000
	w.active = []*readTable{table}
	w.reported = time.Now()
	if w.report(); said.Len() > 0 {
		t.Errorf("too early: %s", said.String())
	}
	w.reported = w.begun
	w.report()
	w.report()
	if got := said.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got,
		"table=public.orders rows=1000 tables_done=0 tables=1 rows_per_second=49 estimated=4000 eta=1m0s") &&
		!strings.Contains(got, "table=public.orders rows=1000 tables_done=0 tables=1 rows_per_second=50 estimated=4000 eta=1m0s") {
		t.Error(got)
	}
}

// What is cut at any places comes out as blocks of whole rows, of at least blockBytes but
// for the last.
func TestBlocks(t *testing.T) {
	full := make(chan *block, 100)
	r := &reader{empty: make(chan *block, 100), full: full}
	for range 100 {
		r.empty <- &block{}
	}
	w := blockWriter{ctx: t.Context(), reader: r, table: &readTable{}, first: true}
	if err := w.next(); err != nil {
		t.Fatal(err)
	}
	var all []byte
	for i := range 60_000 {
		all = fmt.Appendf(all, "%d\tvalue %d\n", i, i%7)
	}
	for rest := all; len(rest) > 0; {
		n := min(len(rest), 1+len(rest)%977)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.put(w.block); err != nil {
		t.Fatal(err)
	}
	close(full)
	var got []byte
	for b := range full {
		if b.first != (got == nil) || len(full) > 0 && len(b.rows) < 64<<10 || b.rows[len(b.rows)-1] != '\n' {
			t.Errorf("a block of %d bytes, first %t, ends with %q", len(b.rows), b.first, b.rows[len(b.rows)-1])
		}
		got = append(got, b.rows...)
	}
	if string(got) != string(all) {
		t.Errorf("%d bytes of %d come out", len(got), len(all))
	}
}
