package sinktest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/stream"
)

func testRows(f *fixture) {
	t := f.Table(items(), 3)
	f.Tx(change(t, 'c', 1, 10, "a\tb\\c\nd"), change(t, 'c', 2, nil, ""), change(t, 'r', 3, 30, `\N`))
	f.start(f.config(f.mode))
	f.want("items", "1|10|a\tb\\c\nd", `2|\N|`, `3|30|\N`)
	f.Tx(change(t, 'u', 1, 11, "x"), change(t, 'd', 2), change(t, 'c', 4, 40, nil), change(t, 'd', 4), change(t, 'c', 4, 41, "again"))
	f.want("items", "1|11|x", `3|30|\N`, "4|41|again")
}

// Whoever reads from an older position again, because it does not ask the target, is told by
// the positions: the same batch twice is the same rows.
func testDuplicate(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"), change(t, 'd', 1))
	s, at := f.open(t)
	b := f.batch(at, t)
	f.apply(s, b)
	f.apply(s, b)
	f.want("items", "2|20|b")
	_, at = f.open(t)
	for p, q := range b.Positions {
		if at[p] != q {
			f.Errorf("%v: the target has %+v, %+v was applied", p, at[p], q)
		}
	}
	if again := f.batch(at, t); len(again.Changes) > 0 {
		f.Errorf("%d changes are read again", len(again.Changes))
	}
}

// Changes of one key in one batch, in every order, end as the last one says.
func testReorder(f *fixture) {
	t := f.Table(items(), 1)
	for id, ops := range []string{"cud", "cudc", "cuuu", "rdc", "cdcd", "cdcu"} {
		f.Begin()
		for i, op := range []byte(ops) {
			c := change(t, op, id, i, string(ops[i]))
			f.Write(&c)
		}
		f.End()
	}
	f.Flush()
	s, at := f.open(t)
	f.apply(s, f.batch(at, t))
	f.want("items", "1|3|c", "2|3|u", "3|2|c", "5|3|u")
}

// A record that cannot be decoded stops the sink; what lies before it is there, nothing of
// its transaction is.
func testPoison(f *fixture) {
	t := f.Table(items(), 1)
	f.Tx(change(t, 'c', 1, 10, "a"))
	stop, _ := f.start(f.config(f.mode))
	f.want("items", "1|10|a")
	if err := stop(); err != nil {
		f.Fatal(err)
	}
	f.Begin()
	c := change(t, 'c', 2, 20, "b")
	f.Write(&c)
	key := schemas.AppendLong(schemas.AppendFrame(nil, t.keyID), 3)
	f.put(sinks.Partition{Topic: t.Topic}, key, append(schemas.AppendFrame(nil, t.valueID), 0x02, 0xff), 0)
	f.End()
	f.Flush()
	_, ended := f.start(f.config(f.mode))
	if err := ended(); err == nil {
		f.Fatal("the sink ended without an error after a record that is not Avro")
	}
	f.want("items", "1|10|a")
}

// Without transactions what lies before it in its partition is there.
func testPoisonKeys(f *fixture) {
	t := f.Table(items(), 1)
	f.Begin()
	c := change(t, 'c', 1, 10, "a")
	f.Write(&c)
	key := schemas.AppendLong(schemas.AppendFrame(nil, t.keyID), 3)
	f.put(sinks.Partition{Topic: t.Topic}, key, append(schemas.AppendFrame(nil, t.valueID), 0x02, 0xff), 0)
	c = change(t, 'c', 2, 20, "b")
	f.Write(&c)
	f.End()
	f.Flush()
	_, ended := f.start(f.config(sinks.Keys))
	if err := ended(); err == nil {
		f.Fatal("the sink ended without an error after a record that is not Avro")
	}
	f.want("items", "1|10|a")
}

func testSchemaChange(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"))
	f.start(f.config(f.mode))
	f.want("items", "1|10|a")
	wider := items()
	wider.Columns = append(wider.Columns, schemas.Column{Name: "more", Type: schemas.Type{Kind: schemas.String}, Nullable: true})
	t2 := f.Table(wider, 2)
	f.Begin()
	for _, c := range []Change{change(t, 'c', 2, 20, "b"), change(t2, 'c', 3, 30, "c", "d"), change(t2, 'u', 1, 11, "a", "e")} {
		f.Write(&c)
	}
	f.End()
	f.Flush()
	f.want("items", "1|11|a|e", `2|20|b|\N`, "3|30|c|d")
	narrow := items()
	narrow.Columns = narrow.Columns[:2]
	t3 := f.Table(narrow, 2)
	f.Tx(change(t3, 'u', 2, 21), change(t3, 'c', 4, 40))
	f.want("items", "1|11|a|e", `2|21|b|\N`, "3|30|c|d", `4|40|\N|\N`)
}

// A table that comes to be while the sink runs is read from its first transaction on.
func testNewTable(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"))
	f.start(f.config(f.mode))
	f.want("items", "1|10|a")
	other := items()
	other.Name = "others"
	o := f.Table(other, 3)
	f.Tx(change(o, 'c', 5, 50, "x"), change(t, 'u', 1, 11, "b"), change(o, 'c', 6, 60, "y"))
	f.want("others", "5|50|x", "6|60|y")
	f.want("items", "1|11|b")
}

func testNewTableKeys(f *fixture) {
	f.mode = sinks.Keys
	testNewTable(f)
}

// A second member stands by, and goes on when the first one leaves.
func testStandby(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"))
	stop, _ := f.start(f.config(f.mode))
	f.want("items", "1|10|a")
	f.start(f.config(f.mode))
	f.Tx(change(t, 'c', 2, 20, "b"))
	f.want("items", "1|10|a", "2|20|b")
	if err := stop(); err != nil {
		f.Fatal(err)
	}
	f.Tx(change(t, 'd', 1), change(t, 'u', 2, 21, "c"))
	f.want("items", "2|21|c")
}

func testTruncate(f *fixture) {
	t := f.Table(items(), 3)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	f.Tx(change(t, 'c', 3, 30, "c"), Change{Table: t, Op: 't'}, change(t, 'c', 2, 21, "d"), change(t, 'c', 4, 40, "e"))
	f.start(f.config(f.mode))
	f.want("items", "2|21|d", "4|40|e")
}

// Outside of source transactions the partitions come one after the other: each waits at the
// TRUNCATE for the others.
func testTruncateOutside(f *fixture) {
	t := f.Table(items(), 3)
	read := func(lowest int) {
		for id := lowest; id < lowest+20; id++ {
			c := change(t, 'r', id, id, "x")
			c.Flags = stream.FlagBackfill
			f.Write(&c)
		}
	}
	f.Begin()
	read(0)
	f.Write(&Change{Table: t, Op: 't', Flags: stream.FlagBackfill})
	read(100)
	f.End()
	f.Flush()
	f.start(f.config(f.mode))
	var want []string
	for id := 100; id < 120; id++ {
		want = append(want, fmt.Sprintf("%d|%d|x", id, id))
	}
	f.want("items", want...)
	f.Tx(change(t, 'd', 100))
	f.want("items", want[1:]...)
}

func testTruncateKeys(f *fixture) {
	t := f.Table(items(), 3)
	f.Begin()
	var want []string
	for id := range 30 {
		c := change(t, 'c', id, 0, "old")
		f.Write(&c)
	}
	f.Write(&Change{Table: t, Op: 't'})
	for id := 20; id < 40; id++ {
		c := change(t, 'c', id, 1, "new")
		f.Write(&c)
		want = append(want, fmt.Sprintf("%d|1|new", id))
	}
	f.End()
	f.Flush()
	f.start(f.config(sinks.Keys))
	f.want("items", want...)
}

func testKeyChange(f *fixture) {
	t := f.Table(items(), 3)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"), change(t, 'c', 3, 30, "c"))
	f.start(f.config(f.mode))
	f.want("items", "1|10|a", "2|20|b", "3|30|c")
	// The whole table shifts, from the top; then a row takes the place of another one.
	f.Tx(moved(t, 3, 4, 30, "c"), moved(t, 2, 3, 20, "b"), moved(t, 1, 2, 10, "a"))
	f.want("items", "2|10|a", "3|20|b", "4|30|c")
	f.Tx(change(t, 'd', 4), moved(t, 3, 4, 21, "b"))
	f.want("items", "2|10|a", "4|21|b")
}

// moved is a change of a row's key.
func moved(t *Table, from, to, v int, note any) Change {
	c := change(t, 'u', to, v, note)
	c.OldKey = []any{from}
	return c
}

// What the log does not hold is taken from the old row.
func testKeyChangeUnchanged(f *fixture) {
	t := f.Table(items(), 3)
	f.Tx(change(t, 'c', 2, 10, "a"), change(t, 'c', 4, 21, "b"))
	f.start(f.config(f.mode))
	f.want("items", "2|10|a", "4|21|b")
	f.Tx(change(t, 'u', 4, 22, "bb"), moved(t, 4, 5, 23, Unchanged), moved(t, 2, 1, 11, Unchanged), change(t, 'u', 1, 12, Unchanged))
	f.want("items", "1|12|a", "5|23|bb")
}

func testUnchanged(f *fixture) {
	t := f.Table(items(), 1)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	f.start(f.config(f.mode))
	f.want("items", "1|10|a", "2|20|b")
	f.Tx(change(t, 'u', 1, 11, Unchanged), change(t, 'c', 3, 30, "c"), change(t, 'u', 3, 31, Unchanged), change(t, 'u', 2, 21, Unchanged), change(t, 'u', 2, 22, "new"), change(t, 'u', 2, 23, Unchanged))
	f.want("items", "1|11|a", "2|23|new", "3|31|c")
	f.Begin() // more than a few, as larger batches take another way
	for id := 1000; id < 1300; id++ {
		c := change(t, 'c', id, id, "x")
		f.Write(&c)
	}
	f.End()
	f.Flush()
	f.wantCount("items", 303)
	f.Begin()
	for id := 1000; id < 1300; id++ {
		c := change(t, 'd', id)
		f.Write(&c)
	}
	f.End()
	f.Flush()
	f.want("items", "1|11|a", "2|23|new", "3|31|c")
}

// A row that the target does not have cannot be completed.
func testUnchangedMissing(f *fixture) {
	t := f.Table(items(), 1)
	f.Tx(change(t, 'c', 1, 11, "a"))
	_, ended := f.start(f.config(f.mode))
	f.want("items", "1|11|a")
	f.Tx(change(t, 'u', 99, 1, Unchanged))
	if err := ended(); !sinks.IsFatal(err) || sinks.HintOf(err) == "" {
		f.Fatalf("the sink ended with %v, hint %q; want a fatal error with a hint", err, sinks.HintOf(err))
	}
	f.want("items", "1|11|a")
}

// Nothing of a batch stays if the sink dies before it is durable.
func testCrashBefore(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	s, at := f.open(t)
	b := f.batch(at, t)
	b.More = true
	f.apply(s, b)
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	if rows := f.read(f.T, "items"); len(rows) > 0 {
		f.Fatalf("rows of half a transaction are there: %q", rows)
	}
	f.start(f.config(f.mode))
	f.want("items", "1|10|a", "2|20|b")
}

// A batch that is durable is not read again, whatever its sink said last.
func testCrashAfter(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	s, at := f.open(t)
	b := f.batch(at, t)
	f.apply(s, b)
	f.Tx(change(t, 'd', 1), change(t, 'u', 2, 21, "c"))
	_, at = f.open(t) // the first one is still connected
	if rest := f.batch(at, t); len(rest.Changes) != 3 {
		f.Fatalf("%d changes are read after the restart, want the 3 new ones", len(rest.Changes))
	}
	f.start(f.config(f.mode))
	f.want("items", "2|21|c")
}

// Who was replaced writes nothing, also with a transaction that it has begun.
func testFence(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	zombie, at := f.open(t)
	half, at2 := f.open(t)
	b := f.batch(at, t)
	if err := zombie.Apply(context.Background(), b); !errors.Is(err, sinks.ErrFenced) {
		f.Fatalf("a sink that was replaced says %v", err)
	}
	more := *b
	more.More = true
	f.apply(half, &more)
	owner, at3 := f.open(t) // has to break the lock of the one that has begun
	if fmt.Sprint(at2) != fmt.Sprint(at3) {
		f.Fatalf("positions moved from %v to %v, but nothing was applied", at2, at3)
	}
	if err := half.Apply(context.Background(), b); err == nil {
		f.Fatal("a sink that was replaced has finished its transaction")
	}
	if rows := f.read(f.T, "items"); len(rows) > 0 {
		f.Fatalf("a sink that was replaced wrote %q", rows)
	}
	f.apply(owner, b)
	f.want("items", "1|10|a", "2|20|b")
}

// Without transactions a fence cannot keep a change from the target, but who was replaced is
// told so, and moves no position.
func testFenceLate(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	zombie, at := f.open(t)
	b := f.batch(at, t)
	owner, at2 := f.open(t)
	for range 2 {
		if err := zombie.Apply(context.Background(), b); !errors.Is(err, sinks.ErrFenced) {
			f.Fatalf("a sink that was replaced says %v", err)
		}
	}
	next, at3 := f.open(t)
	if fmt.Sprint(at2) != fmt.Sprint(at3) {
		f.Fatalf("who was replaced moved positions from %v to %v", at2, at3)
	}
	if err := owner.Apply(context.Background(), b); !errors.Is(err, sinks.ErrFenced) {
		f.Fatalf("a sink that was replaced says %v", err)
	}
	f.apply(next, b)
	f.want("items", "1|10|a", "2|20|b")
	if _, at = f.open(t); fmt.Sprint(at) != fmt.Sprint(b.Positions) {
		f.Fatalf("the positions are %v, %v was applied", at, b.Positions)
	}
}

// The pieces of a large transaction are seen together.
func testPieces(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"), change(t, 'u', 1, 11, "c"), change(t, 'd', 2), change(t, 'c', 3, 30, "d"))
	s, at := f.open(t)
	b := f.batch(at, t)
	for i, c := range b.Changes {
		piece := &sinks.Batch{Changes: []*sinks.Change{c}, More: i < len(b.Changes)-1}
		if !piece.More {
			piece.Positions = b.Positions
		}
		f.apply(s, piece)
		if piece.More {
			if rows := f.read(f.T, "items"); len(rows) > 0 {
				f.Fatalf("after piece %d the target reads %q", i, rows)
			}
		}
	}
	f.want("items", "1|11|c", "3|30|d")
}

// A topic that was made anew, and does not reach as far, is not taken for the old one.
func testRecreated(f *fixture) {
	t := f.Table(items(), 1)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"), change(t, 'd', 2))
	cfg := f.config(f.mode)
	stop, _ := f.start(cfg)
	f.want("items", "1|10|a")
	f.durable(&cfg, 2)
	if err := stop(); err != nil {
		f.Fatal(err)
	}
	if err := f.source.Client.DeleteTopic(context.Background(), t.Topic); err != nil {
		f.Fatal(err)
	}
	f.topic(t.Topic, 1)
	f.connect()
	clear(f.n)
	f.n[f.end] = 1
	f.Tx(change(t, 'c', 7, 70, "x"))
	_, ended := f.start(f.config(f.mode))
	if err := ended(); !sinks.IsFatal(err) || sinks.HintOf(err) == "" || !strings.Contains(err.Error(), t.Topic) {
		f.Fatalf("the sink ended with %v, hint %q; want a fatal error about the topic", err, sinks.HintOf(err))
	}
	f.want("items", "1|10|a")
}
