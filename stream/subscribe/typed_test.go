package subscribe_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

type order struct {
	ID     int64
	Name   *string
	Amount string
	Note   subscribe.Field[string]
	Absent string `tailrace:"no_such_column"`
	Left   string `tailrace:"-"`
}

func subscription[T any](t testing.TB, w *world, topic string, opts ...subscribe.Option) *subscribe.Subscription[T] {
	t.Helper()
	sub, err := subscribe.To[T](testContext(t), w.config(), topic, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// events takes n events; each is given to fn first.
func events(t testing.TB, sub *subscribe.Subscription[order], n int, fn func(*subscribe.Event[order])) []string {
	t.Helper()
	var got []string
	for e, err := range sub.Changes(testContext(t)) {
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		row := e.After
		if row == nil {
			row = e.Before
		}
		s := fmt.Sprintf("%c", e.Op)
		if row != nil {
			s = fmt.Sprintf("%c %d %s %s %s%v", e.Op, row.ID, *row.Name, row.Amount, row.Note.Value, row.Note.State)
		}
		got = append(got, s)
		if fn != nil {
			fn(e)
		}
		if len(got) == n {
			break
		}
	}
	return got
}

func TestTypedChanges(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		w.tx(change{t: orders, op: 'c', id: 1, name: "a", note: "x"}, change{t: orders, op: 'u', id: 1, name: "b", note: toasted})
		w.tx(change{t: orders, op: 'd', id: -7, name: "c", note: "-"}, change{t: orders, op: 't'}, change{t: orders, op: 'c', id: 2, name: "d"})
		var all []*subscribe.Event[order]
		got := events(t, subscription[order](t, w, orders.Topic), 5, func(e *subscribe.Event[order]) { all = append(all, e) })
		wantLines(t, got, "c 1 a 1.50 xset", "u 1 b 1.50 unchanged", "d -7 c -7.50 null", "t", "c 2 d 2.50 set")
		if e := all[1]; !e.Unchanged("note") || e.Unchanged("name") || e.Before != nil || string(e.Key) != "\x02" {
			t.Errorf("second event is %+v", e)
		}
		if e := all[4]; e.Position.N != 6 || e.Position.Row != 4 || !e.Committed.Equal(time.UnixMilli(w.now)) {
			t.Errorf("last event is %+v", e)
		}
	})
}

func TestTypedGroup(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		for i := range int64(6) {
			w.tx(change{t: orders, op: 'c', id: i, name: "a"})
		}
		group := subscribe.Group(w.prefix)
		// 0, 1 and 3 are acknowledged: the group goes on with 2.
		first := events(t, subscription[order](t, w, orders.Topic, group), 5, func(e *subscribe.Event[order]) {
			if e.After.ID <= 1 || e.After.ID == 3 {
				e.Ack()
				e.Ack()
			}
		})
		wantLines(t, first, "c 0 a 0.50 set", "c 1 a 1.50 set", "c 2 a 2.50 set", "c 3 a 3.50 set", "c 4 a 4.50 set")
		second := events(t, subscription[order](t, w, orders.Topic, group, subscribe.From(subscribe.Now)), 4, (*subscribe.Event[order]).Ack)
		wantLines(t, second, "c 2 a 2.50 set", "c 3 a 3.50 set", "c 4 a 4.50 set", "c 5 a 5.50 set")
		w.tx(change{t: orders, op: 'd', id: 5, name: "a"}, change{t: orders, op: 'c', id: 6, name: "a"})
		wantLines(t, events(t, subscription[order](t, w, orders.Topic, group), 2, nil), "d 5 a 5.50 set", "c 6 a 6.50 set")
	})
}

// TestTypedGroupShares: two members, and one goes; nothing is lost.
func TestTypedGroupShares(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 4, nil)
		got := make(chan int64, 1000)
		member := func(ctx context.Context) <-chan struct{} {
			sub, done := subscription[order](t, w, orders.Topic, subscribe.Group(w.prefix)), make(chan struct{})
			go func() {
				defer close(done)
				for e, err := range sub.Changes(ctx) {
					if err != nil {
						t.Error(err)
						return
					}
					got <- e.After.ID
					e.Ack()
				}
			}()
			return done
		}
		seen := make(map[int64]bool)
		until := func(n int) {
			for len(seen) < n {
				select {
				case id := <-got:
					seen[id] = true
				case <-time.After(30 * time.Second):
					t.Fatalf("%d of %d changes came", len(seen), n)
				}
			}
		}
		write := func(from, to int64) {
			for i := from; i < to; i++ {
				w.tx(change{t: orders, op: 'c', id: i, name: "a"})
			}
		}
		ctx, cancel := context.WithCancel(testContext(t))
		first, leave := context.WithCancel(ctx)
		a := member(first)
		write(0, 10)
		until(10)
		b := member(ctx)
		write(10, 20)
		until(20)
		leave()
		<-a
		write(20, 30)
		until(30)
		cancel()
		<-b
	})
}

func TestTypedStarts(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		var ends []int64
		for i := range int64(3) {
			o, err := w.client.Offsets(testContext(t), orders.Topic, 0)
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, o.End)
			w.tx(change{t: orders, op: 'c', id: i, name: "a"})
			w.now += 60_000
		}
		for want, from := range map[string]subscribe.Start{
			"c 0 a 0.50 set": subscribe.Beginning,
			"c 1 a 1.50 set": subscribe.Time(time.UnixMilli(w.now - 120_000)),
			"c 2 a 2.50 set": subscribe.Offset(ends[2]),
		} {
			wantLines(t, events(t, subscription[order](t, w, orders.Topic, subscribe.From(from)), 1, nil), want)
		}
	})
}

func TestTypedFromNow(t *testing.T) {
	forEachBroker(t, func(t *testing.T, w *world) {
		orders := w.table("orders", 1, nil)
		w.tx(change{t: orders, op: 'c', id: 0, name: "before"})
		if _, err := w.client.WaitStable(testContext(t), orders.Topic, 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		got := make(chan string, 100)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e, err := range subscription[order](t, w, orders.Topic, subscribe.From(subscribe.Now)).Changes(ctx) {
				if err != nil {
					t.Error(err)
					return
				}
				got <- *e.After.Name
			}
		}()
		for i := int64(1); ; i++ { // until it has begun
			w.tx(change{t: orders, op: 'c', id: i, name: "after"})
			select {
			case name := <-got:
				if name != "after" {
					t.Errorf("got %q", name)
				}
				cancel()
				<-done
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

func TestTypedRefusals(t *testing.T) {
	w := newWorld(t, startEmbedded(t), false)
	orders := w.table("orders", 1, nil)
	w.tx(change{t: orders, op: 'c', id: 300, name: "a", note: "-"})
	fails := func(err error, says string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error is %v, want %q", err, says)
		}
	}
	_, err := subscribe.To[int](testContext(t), w.config(), orders.Topic)
	fails(err, "a struct is needed")
	_, err = subscribe.To[struct{ id int }](testContext(t), w.config(), orders.Topic)
	fails(err, "no exported fields")
	_, err = subscribe.To[order](testContext(t), w.config(), "nowhere")
	fails(err, "topic does not exist")
	_, err = subscribe.To[order](testContext(t), subscribe.Config{}, orders.Topic)
	fails(err, "a client and a registry")
	fails(firstError[struct{ ID int8 }](t, w, orders.Topic), "column id: 300 does not fit into a int8")
	fails(firstError[struct{ Note string }](t, w, orders.Topic), "column note: it is null, which a string cannot be")
	fails(firstError[struct{ Name int }](t, w, orders.Topic), "column name: a value of Avro type string does not fit into a int")
	fails(firstError[struct{ Amount time.Time }](t, w, orders.Topic), "column amount: a value of Avro type bytes")
}

func firstError[T any](t *testing.T, w *world, topic string) error {
	t.Helper()
	for e, err := range subscription[T](t, w, topic).Changes(testContext(t)) {
		if err == nil {
			t.Errorf("got %+v", e)
		}
		return err
	}
	return nil
}

type everything struct {
	B     bool
	I16   uint16
	I64   sql.Null[int64]
	F     float64
	Dec   *big.Rat
	VarDc float64 `tailrace:"vardec"`
	Raw   []byte
	Day   time.Time
	At    time.Time
	Zoned *time.Time
	Tod   time.Duration
	Tags  []string
	Nums  []*int32
	UID   string
}

func TestTypedKinds(t *testing.T) {
	w := newWorld(t, startEmbedded(t), false)
	k := func(k schemas.Kind) schemas.Type { return schemas.Type{Kind: k, Precision: 6} }
	elem := func(e schemas.Kind) schemas.Type { t := k(e); return schemas.Type{Kind: schemas.Array, Elem: &t} }
	cols := []schemas.Column{
		{Name: "b", Type: k(schemas.Bool)}, {Name: "i16", Type: k(schemas.Int16)}, {Name: "i64", Type: k(schemas.Int64), Nullable: true},
		{Name: "f", Type: k(schemas.Float64)}, {Name: "dec", Type: schemas.Type{Kind: schemas.Decimal, Precision: 9, Scale: 3}}, {Name: "vardec", Type: k(schemas.VarDecimal)},
		{Name: "raw", Type: k(schemas.Bytes)}, {Name: "day", Type: k(schemas.Date)}, {Name: "at", Type: k(schemas.Timestamp)}, {Name: "zoned", Type: k(schemas.ZonedTimestamp), Nullable: true},
		{Name: "tod", Type: k(schemas.Time)}, {Name: "tags", Type: elem(schemas.String)}, {Name: "nums", Type: elem(schemas.Int32)}, {Name: "u_id", Type: k(schemas.UUID)},
	}
	table := w.tableOf("kinds", 1, nil, &schemas.Table{Namespace: "public", Name: "kinds", Columns: cols, Key: []int{1}})
	at := time.Date(2026, 3, 4, 5, 6, 7, 891234000, time.UTC)
	w.begin()
	v := schemas.AppendUnion(schemas.AppendUnion(schemas.AppendFrame(nil, table.valueID), schemas.EnvelopeNull), schemas.EnvelopeRow)
	v = schemas.AppendUnion(schemas.AppendInt(schemas.AppendBool(v, true), 500), 0)
	v, err1 := schemas.AppendDecimal(schemas.AppendDouble(v, 2.5), []byte("-0.125"), 3)
	v, err2 := schemas.AppendVarDecimal(v, []byte("12345678901234567890.5"))
	v = schemas.AppendDate(schemas.AppendBytes(v, []byte{1, 2}), 20516)
	v = schemas.AppendTimestamp(v, at.UnixMicro(), &cols[8].Type)
	v = schemas.AppendZonedTimestamp(schemas.AppendUnion(v, 1), at.UnixMicro(), &cols[9].Type)
	v = schemas.AppendTime(v, 3_723_000_001, &cols[10].Type)
	v = schemas.AppendArrayEnd(schemas.AppendString(schemas.AppendUnion(schemas.AppendArrayStart(v, 1), 1), "x"))
	v = schemas.AppendArrayEnd(schemas.AppendUnion(schemas.AppendInt(schemas.AppendUnion(schemas.AppendArrayStart(v, 2), 1), 7), 0))
	v = schemas.AppendString(v, "8a6e0804-2bd0-4672-b79d-d97027f9071a")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	v = schemas.AppendEnvelopeTail(w.source.Append(v, schemas.NewSourceTable("public", "kinds"), 1), 'c', 1)
	w.put(stream.Partition{Topic: table.Topic}, schemas.AppendInt(schemas.AppendFrame(nil, table.keyID), 500), v, 0, nil)
	w.commit()
	for e, err := range subscription[everything](t, w, table.Topic).Changes(testContext(t)) {
		if err != nil {
			t.Fatal(err)
		}
		a := e.After
		if !a.B || a.I16 != 500 || a.I64.Valid || a.F != 2.5 || a.Dec.RatString() != "-1/8" || a.VarDc != 12345678901234567890.5 || !slices.Equal(a.Raw, []byte{1, 2}) {
			t.Errorf("row is %+v", a)
		}
		if !a.Day.Equal(time.Date(2026, 3, 4, 0, 0, 0, 0, time.UTC)) || !a.At.Equal(at.Truncate(time.Microsecond)) || !a.Zoned.Equal(a.At) || a.Tod != time.Hour+2*time.Minute+3*time.Second+time.Microsecond {
			t.Errorf("times are %v %v %v %v", a.Day, a.At, a.Zoned, a.Tod)
		}
		if !slices.Equal(a.Tags, []string{"x"}) || len(a.Nums) != 2 || *a.Nums[0] != 7 || a.Nums[1] != nil || a.UID != "8a6e0804-2bd0-4672-b79d-d97027f9071a" {
			t.Errorf("arrays are %v %v, uuid %s", a.Tags, a.Nums, a.UID)
		}
		break
	}
}

// exampleTB lets an example use the tests' world.
type exampleTB struct {
	testing.TB
	cleanups []func()
	dir      string
}

func (tb *exampleTB) Helper()                  {}
func (tb *exampleTB) Context() context.Context { return context.Background() }
func (tb *exampleTB) Name() string             { return "Example" }
func (tb *exampleTB) Fatal(args ...any)        { panic(fmt.Sprint(args...)) }
func (tb *exampleTB) Error(args ...any)        { panic(fmt.Sprint(args...)) }
func (tb *exampleTB) Cleanup(fn func())        { tb.cleanups = append(tb.cleanups, fn) }
func (tb *exampleTB) TempDir() string          { return tb.dir }
func (tb *exampleTB) end() {
	for _, fn := range slices.Backward(tb.cleanups) {
		fn()
	}
	os.RemoveAll(tb.dir)
}

func exampleWorld() (*world, *exampleTB) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	tb := &exampleTB{dir: dir}
	w := newWorld(tb, startEmbedded(tb), false)
	orders := w.table("orders", 1, nil)
	w.tx(change{t: orders, op: 'c', id: 1, name: "tea"}, change{t: orders, op: 'u', id: 1, name: "green tea", note: toasted})
	w.tx(change{t: orders, op: 'd', id: 1, name: "green tea"})
	return w, tb
}
