package sinktest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/stream"
)

// resolve waits until a sink has stopped for good with an error that says want, and takes the
// way on that it names, which must be way. It returns what that was said to do.
func (f *fixture) resolve(cfg sinks.Config, ended func() error, want, way string) *sinks.Effect {
	f.T.Helper()
	err := ended()
	ways := sinks.WaysOf(err)
	if !sinks.IsFatal(err) || !strings.Contains(err.Error(), want) || sinks.HintOf(err) == "" {
		f.Fatalf("the sink ended with %v, hint %q; want %q", err, sinks.HintOf(err), want)
	}
	if len(ways) == 0 || ways[0].Flag != way {
		f.Fatalf("%v leads on by %v, want %s", err, ways, way)
	}
	d := f.decision(ways[0])
	no := errors.New("no")
	if err := sinks.Resolve(f.ctx(), cfg, d, func(context.Context, *sinks.Effect) error { return no }); !errors.Is(err, no) {
		f.Fatalf("who says no gets %v", err)
	}
	_, ended = f.start(cfg)
	if again := ended(); again == nil || again.Error() != err.Error() {
		f.Fatalf("it was not agreed to, and yet the sink ends with %v, not %v", again, err)
	}
	var told *sinks.Effect
	if err := sinks.Resolve(f.ctx(), cfg, d, func(_ context.Context, e *sinks.Effect) error { told = e; return nil }); err != nil {
		f.Fatal(err)
	}
	if told.Sink != cfg.Name || told.Way != way {
		f.Errorf("it says %s of %s", told.Way, told.Sink)
	}
	return told
}

// decision makes the decision that a way names.
func (f *fixture) decision(w sinks.Way) sinks.Decision {
	f.T.Helper()
	switch w.Flag {
	case sinks.WayGap:
		return sinks.Decision{AcceptGap: true}
	case sinks.WayBeginning:
		return sinks.Decision{FromBeginning: true}
	}
	topic, rest, _ := strings.Cut(w.Value, "/")
	number, offset, _ := strings.Cut(rest, "@")
	n, err := strconv.Atoi(number)
	to, err2 := strconv.ParseInt(offset, 10, 64)
	if err := errors.Join(err, err2); err != nil || w.Flag != sinks.WaySkip {
		f.Fatalf("no decision is called %v: %v", w, err)
	}
	return sinks.Decision{SkipTo: map[sinks.Partition]int64{{Topic: topic, Number: int32(n)}: to}}
}

// words writes what a decision does.
func words(e *sinks.Effect) string {
	var b strings.Builder
	for _, p := range e.Partitions {
		fmt.Fprintf(&b, "%s/%d: skipped %d, missing %d, again %d; ", p.Topic[strings.LastIndexByte(p.Topic, '.')+1:], p.Partition, p.Skipped, p.Missing, p.Again)
	}
	return fmt.Sprintf("%sletters %d", b.String(), e.Letters)
}

func (f *fixture) says(e *sinks.Effect, want string) {
	f.T.Helper()
	if got := words(e); got != want {
		f.Errorf("it says %q, want %q", got, want)
	}
}

// A row that the target refuses is left out: with its whole transaction, where the sink keeps
// these together.
func testResolveRefused(f *fixture) {
	t, cfg := f.begun()
	f.refuse(true)
	f.Tx(change(t, 'c', 2, 20, "b"))
	f.Tx(change(t, 'c', 3, Poison, "c"), change(t, 'c', 4, 40, "d"))
	f.Tx(change(t, 'c', 5, 50, "e"))
	_, ended := f.start(cfg)
	told := f.resolve(cfg, ended, "", sinks.WaySkip)
	if f.mode == sinks.Keys {
		f.says(told, "items/0: skipped 1, missing 0, again 0; letters 0")
		f.start(cfg)
		f.want("items", "1|10|a", "2|20|b", "4|40|d", "5|50|e")
		return
	}
	f.says(told, "transaction/0: skipped 1, missing 0, again 0; items/0: skipped 2, missing 0, again 0; letters 0")
	f.start(cfg)
	f.want("items", "1|10|a", "2|20|b", "5|50|e")
}

// begun has a sink apply one row and stop.
func (f *fixture) begun() (*Table, sinks.Config) {
	f.T.Helper()
	t := f.Table(items(), 1)
	f.Tx(change(t, 'c', 1, 10, "a"))
	cfg := f.config(f.mode)
	stop, _ := f.start(cfg)
	f.want("items", "1|10|a")
	f.durable(&cfg, 1)
	if err := stop(); err != nil {
		f.Fatal(err)
	}
	return t, cfg
}

// durable waits until a sink has applied so many inserts, and its position says so: where the
// target has the rows and another place the positions, rows are seen before.
func (f *fixture) durable(cfg *sinks.Config, inserts uint64) {
	f.T.Helper()
	for deadline := time.Now().Add(waitTime); cfg.Monitor.Status().Events["create"] < inserts; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatal("the position does not follow")
		}
	}
}

// A row of a backfill that the target refuses is left out alone, whatever stands around it.
func testResolveRefusedRead(f *fixture) {
	t, cfg := f.begun()
	f.refuse(true)
	want := []string{"1|10|a"}
	f.Tx(change(t, 'c', 2, 20, "b"))
	f.Begin()
	for id := range 50 {
		v := 7
		if id == 31 {
			v = Poison
		}
		c := change(t, 'r', 100+id, v, "r")
		c.Flags = stream.FlagBackfill
		f.Write(&c)
		if id != 31 {
			want = append(want, fmt.Sprintf("%d|7|r", 100+id))
		}
	}
	f.End()
	f.Flush()
	f.Tx(change(t, 'c', 3, 30, "c"))
	_, ended := f.start(cfg)
	f.says(f.resolve(cfg, ended, "", sinks.WaySkip), "items/0: skipped 1, missing 0, again 0; letters 0")
	f.start(cfg)
	f.want("items", append(want, "2|20|b", "3|30|c")...)
}

// Of a source transaction that comes in several pieces nothing is applied, and all before it,
// also rows of a backfill that stand in the same partitions.
func testResolveRefusedLarge(f *fixture) {
	t, cfg := f.begun()
	f.refuse(true)
	f.Tx(change(t, 'c', 2, 20, "b"))
	f.Begin()
	read := change(t, 'r', 3, 30, "r")
	read.Flags = stream.FlagBackfill
	f.Write(&read)
	f.End()
	f.Begin()
	text := strings.Repeat("x", 1<<20)
	for id := range 20 {
		v := 7
		if id == 18 {
			v = Poison
		}
		c := change(t, 'c', 100+id, v, text)
		f.Write(&c)
	}
	f.End()
	f.Flush()
	f.Tx(change(t, 'c', 4, 40, "d"))
	_, ended := f.start(cfg)
	f.says(f.resolve(cfg, ended, "", sinks.WaySkip), "transaction/0: skipped 1, missing 0, again 0; items/0: skipped 20, missing 0, again 0; letters 0")
	f.start(cfg)
	f.want("items", "1|10|a", "2|20|b", "3|30|r", "4|40|d")
}

// A record that is not Avro, and one of another program, are left out.
func testResolvePoison(f *fixture) {
	t := f.Table(items(), 1)
	cfg := f.config(f.mode)
	key := schemas.AppendLong(schemas.AppendFrame(nil, t.keyID), 3)
	f.Tx(change(t, 'c', 1, 10, "a"))
	f.Begin()
	f.put(sinks.Partition{Topic: t.Topic}, key, append(schemas.AppendFrame(nil, t.valueID), 0x02, 0xff), 0)
	f.End()
	f.Flush()
	var b stream.Batch
	if err := b.Append(1, []byte("k"), []byte("v"), nil); err != nil {
		f.Fatal(err)
	}
	if err := b.Seal(stream.None, false); err != nil {
		f.Fatal(err)
	}
	if err := f.producer.Produce(f.ctx(), []*stream.Outgoing{{Topic: t.Topic, Batch: &b}}); err != nil {
		f.Fatal(err)
	}
	f.Tx(change(t, 'c', 2, 20, "b"))
	_, ended := f.start(cfg)
	told := f.resolve(cfg, ended, "offset 1", sinks.WaySkip)
	f.says(told, "items/0: skipped 1, missing 0, again 0; letters 0")
	_, ended = f.start(cfg)
	told = f.resolve(cfg, ended, "was not written by a capture", sinks.WaySkip)
	f.says(told, "items/0: skipped 1, missing 0, again 0; letters 0")
	f.start(cfg)
	f.want("items", "1|10|a", "2|20|b")
}

// Records are missing: the sink goes on behind the gap.
func testResolveGap(f *fixture) {
	t, cfg := f.begun()
	f.n[sinks.Partition{Topic: t.Topic}] += 5
	f.Tx(change(t, 'c', 2, 20, "b"))
	_, ended := f.start(cfg)
	f.says(f.resolve(cfg, ended, "is number 7", sinks.WayGap), "items/0: skipped 0, missing 5, again 0; letters 0")
	stop, _ := f.start(cfg)
	f.want("items", "1|10|a", "2|20|b")
	f.durable(&cfg, 2)
	if err := stop(); err != nil {
		f.Fatal(err)
	}
	if err := f.source.Client.DeleteTopic(f.ctx(), t.Topic); err != nil {
		f.Fatal(err)
	}
	f.topic(t.Topic, 1)
	f.connect()
	delete(f.n, sinks.Partition{Topic: t.Topic})
	f.Tx(change(t, 'c', 7, 70, "x"))
	_, ended = f.start(cfg)
	f.says(f.resolve(cfg, ended, t.Topic, sinks.WayGap), "items/0: skipped 0, missing 0, again 0; letters 0")
	f.start(cfg)
	f.Tx(change(t, 'c', 8, 80, "y"))
	f.want("items", "1|10|a", "2|20|b", "7|70|x", "8|80|y")
}

// The dead letters are gone: all that the topics hold is applied again.
func testResolveLetters(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	cfg := f.parks()
	stop, _ := f.start(cfg)
	f.want("items", "1|10|a", "2|20|b")
	f.refuse(true)
	f.Tx(change(t, 'u', 1, Poison, "x"))
	f.parked(&cfg, 1, 1)
	f.Tx(change(t, 'u', 1, 11, "y"), change(t, 'u', 2, 21, "y"))
	f.parked(&cfg, 2, 1)
	f.want("items", "1|10|a", "2|21|y")
	if err := stop(); err != nil {
		f.Fatal(err)
	}
	f.refuse(false)
	if err := f.source.Client.DeleteTopic(f.ctx(), sinks.DeadLettersTopic("s")); err != nil {
		f.Fatal(err)
	}
	cfg = f.parks()
	_, ended := f.start(cfg)
	told := f.resolve(cfg, ended, "dead letters are gone", sinks.WayBeginning)
	if told.Letters != 2 {
		f.Errorf("it gives up %d letters, want 2", told.Letters)
	}
	f.start(cfg)
	f.want("items", "1|11|y", "2|21|y")
	f.parked(&cfg, 0, 0)
}

// Bad decisions are refused, and so is one about a sink that goes on elsewhere.
func testResolveRefuses(f *fixture) {
	t, cfg := f.begun()
	at := sinks.Partition{Topic: t.Topic}
	refused := func(d sinks.Decision, want string) {
		f.T.Helper()
		err := sinks.Resolve(f.ctx(), cfg, d, func(context.Context, *sinks.Effect) error {
			f.Errorf("%+v was told", d)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), want) || sinks.HintOf(err) == "" {
			f.Errorf("%+v: got %v, hint %q; want %q", d, err, sinks.HintOf(err), want)
		}
	}
	refused(sinks.Decision{}, "must be one")
	refused(sinks.Decision{AcceptGap: true, FromBeginning: true}, "must be one")
	refused(sinks.Decision{AcceptGap: true}, "nothing to decide")
	refused(sinks.Decision{SkipTo: map[sinks.Partition]int64{at: 1}}, "cannot be skipped to offset 1")
	refused(sinks.Decision{SkipTo: map[sinks.Partition]int64{at: 99}}, "cannot be skipped to offset 99")
	refused(sinks.Decision{SkipTo: map[sinks.Partition]int64{{Topic: "nobody's"}: 1}}, "does not read")
	f.Tx(change(t, 'c', 2, 20, "b"))
	err := sinks.Resolve(f.ctx(), cfg, sinks.Decision{SkipTo: map[sinks.Partition]int64{at: 2}}, func(context.Context, *sinks.Effect) error {
		f.start(cfg) // meanwhile
		f.want("items", "1|10|a", "2|20|b")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "runs elsewhere") {
		f.Errorf("got %v", err)
	}
}
