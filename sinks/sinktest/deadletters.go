package sinktest

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/tailrace/tailrace/sinks"
)

// parks is the configuration of a sink that parks what the target refuses.
func (f *fixture) parks() sinks.Config {
	cfg := f.config(sinks.Keys)
	cfg.DeadLetters = sinks.Park
	return cfg
}

// parked waits until so many letters of so many keys are parked.
func (f *fixture) parked(cfg *sinks.Config, letters, keys int) {
	f.T.Helper()
	var got sinks.ParkedStatus
	for deadline := time.Now().Add(waitTime); time.Now().Before(deadline); {
		if got = cfg.Monitor.Status().DeadLetters; got.Letters == letters && got.Keys == keys {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	f.Fatalf("%d letters of %d keys are parked, want %d of %d", got.Letters, got.Keys, letters, keys)
}

// ask asks a sink for something.
func (f *fixture) ask(r sinks.Request) {
	f.T.Helper()
	r.ID, r.Time = rand.Text(), time.Now()
	if _, err := sinks.AskDeadLetters(f.ctx(), f.source.Client, "s", &r); err != nil {
		f.Fatal(err)
	}
}

// A row that the target refuses waits, and with it what comes later of its key; all else
// goes on, over restarts. When the target is mended a retry applies them in order.
func testDeadLetters(f *fixture) {
	t := f.Table(items(), 3)
	var first, want []string
	f.Begin()
	for id := range 40 {
		c := change(t, 'c', id, 1, "a")
		f.Write(&c)
		first = append(first, fmt.Sprintf("%d|1|a", id))
	}
	f.End()
	f.Flush()
	cfg := f.parks()
	stop, _ := f.start(cfg)
	f.want("items", first...)
	f.refuse(true)
	f.Begin()
	for id := range 40 {
		v, now := 2, fmt.Sprintf("%d|2|b", id)
		if id == 5 {
			v, now = Poison, "5|1|a"
		}
		c := change(t, 'u', id, v, "b")
		f.Write(&c)
		want = append(want, now)
	}
	f.End()
	f.Flush()
	f.want("items", want...)
	f.parked(&cfg, 1, 1)
	f.ask(sinks.Request{Action: sinks.ActionRetry}) // in vain
	f.Tx(change(t, 'u', 5, 3, "c"), change(t, 'd', 5), change(t, 'c', 5, 4, "d"))
	f.parked(&cfg, 5, 1)
	f.want("items", want...)
	if err := stop(); err != nil {
		f.Fatal(err)
	}
	cfg = f.parks()
	f.start(cfg)
	f.parked(&cfg, 5, 1)
	f.Tx(change(t, 'u', 5, 5, Unchanged), change(t, 'u', 6, 6, "f"))
	want[6] = "6|6|f"
	f.parked(&cfg, 6, 1)
	f.want("items", want...)
	f.refuse(false)
	f.ask(sinks.Request{Action: sinks.ActionRetry, Topics: []string{t.Topic}})
	f.parked(&cfg, 0, 0)
	want[5] = "5|5|d"
	f.want("items", want...)
	f.Tx(change(t, 'u', 5, 7, "g"))
	want[5] = "5|7|g"
	f.want("items", want...)
}

// The halves of a key change are changes of two keys: each waits with its own.
func testDeadKeyChange(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"), change(t, 'c', 3, 30, "c"))
	cfg := f.parks()
	f.start(cfg)
	f.want("items", "1|10|a", "2|20|b", "3|30|c")
	f.refuse(true)
	f.Tx(change(t, 'u', 1, Poison, "a"))
	f.parked(&cfg, 1, 1)
	away, onto := change(t, 'u', 4, 11, "from 1"), change(t, 'u', 1, 21, "from 2")
	away.OldKey, onto.OldKey = []any{1}, []any{2}
	f.Tx(away)
	f.parked(&cfg, 3, 1) // delete and tombstone of 1
	f.want("items", "1|10|a", "2|20|b", "3|30|c", "4|11|from 1")
	f.Tx(onto)
	f.parked(&cfg, 4, 1)
	f.want("items", "1|10|a", "3|30|c", "4|11|from 1")
	f.refuse(false)
	f.ask(sinks.Request{Action: sinks.ActionRetry})
	f.want("items", "1|21|from 2", "3|30|c", "4|11|from 1")
	f.parked(&cfg, 0, 0)
}

// A TRUNCATE makes obsolete what waits of its table.
func testDeadTruncate(f *fixture) {
	t := f.Table(items(), 3)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	cfg := f.parks()
	f.start(cfg)
	f.want("items", "1|10|a", "2|20|b")
	f.refuse(true)
	f.Tx(change(t, 'u', 1, Poison, "a"))
	f.parked(&cfg, 1, 1)
	f.Tx(change(t, 'u', 1, 12, "a"))
	f.parked(&cfg, 2, 1)
	f.Tx(Change{Table: t, Op: 't'}, change(t, 'c', 1, 13, "new"), change(t, 'c', 3, Poison, "new"))
	f.want("items", "1|13|new")
	f.parked(&cfg, 1, 1)
	f.ask(sinks.Request{Action: sinks.ActionRetry})
	f.refuse(false)
	f.ask(sinks.Request{Action: sinks.ActionRetry})
	f.want("items", "1|13|new", fmt.Sprintf("3|%d|new", Poison))
	f.parked(&cfg, 0, 0)
}

// A drop applies what waits behind, or drops that too. What was asked for while the sink was
// down is done when it runs.
func testDeadDrop(f *fixture) {
	t := f.Table(items(), 2)
	f.Tx(change(t, 'c', 1, 10, "a"), change(t, 'c', 2, 20, "b"))
	cfg := f.parks()
	stop, _ := f.start(cfg)
	f.want("items", "1|10|a", "2|20|b")
	f.refuse(true)
	f.Tx(change(t, 'u', 1, Poison, "x"), change(t, 'u', 2, Poison, "x"))
	f.parked(&cfg, 2, 2) // before what follows: a sink may write only the last state of a row
	f.Tx(change(t, 'u', 1, 11, "y"), change(t, 'u', 2, 21, "y"))
	f.parked(&cfg, 4, 2)
	if err := stop(); err != nil {
		f.Fatal(err)
	}
	letters := f.letters()
	var keys []sinks.ParkedK
	for _, l := range letters {
		if l.State == sinks.LetterRefused {
			keys = append(keys, sinks.ParkedK{Topic: l.Topic, Partition: l.Partition, Key: l.Lane, First: l.Offset})
		}
	}
	if len(letters) != 4 || len(keys) != 2 {
		f.Fatalf("%d letters of %d keys can be read, want 4 of 2", len(letters), len(keys))
	}
	one, other := keys[0], keys[1]
	if one.Key[len(one.Key)-1] != 2 { // Avro's 1
		one, other = other, one
	}
	f.ask(sinks.Request{Action: sinks.ActionDrop, Keys: []sinks.ParkedK{one}, Reason: "test"})
	f.ask(sinks.Request{Action: sinks.ActionDrop, Keys: []sinks.ParkedK{other}, WithWaiting: true, Reason: "test"})
	cfg = f.parks()
	f.start(cfg)
	f.want("items", "1|11|y", "2|20|b")
	f.parked(&cfg, 0, 0)
	f.Tx(change(t, 'u', 2, 22, "z"))
	f.want("items", "1|11|y", "2|22|z")
}

// letters reads what is parked.
func (f *fixture) letters() []sinks.ParkedLetter {
	f.T.Helper()
	book := sinks.NewLetterBook("s")
	if err := book.Read(f.ctx(), f.source.Client); err != nil {
		f.Fatal(err)
	}
	letters, err := book.Parked()
	if err != nil {
		f.Fatal(err)
	}
	return letters
}

// The sink stops at a letter too many, and a retry leads on.
func testDeadTooMany(f *fixture) {
	t := f.Table(items(), 1)
	f.Tx(change(t, 'c', 1, 1, "a"))
	cfg := f.parks()
	cfg.MaxDeadLetters = 10
	_, ended := f.start(cfg)
	f.want("items", "1|1|a")
	f.refuse(true)
	f.Begin()
	want := []string{"1|1|a"}
	for id := 2; id < 40; id++ {
		v := id
		if id > 20 {
			v = Poison
		} else {
			want = append(want, fmt.Sprintf("%d|%d|a", id, v))
		}
		c := change(t, 'c', id, v, "a")
		f.Write(&c)
	}
	f.End()
	f.Flush()
	if err := ended(); !sinks.IsFatal(err) || !strings.Contains(sinks.HintOf(err), "tailrace dlq retry") {
		f.Fatalf("the sink ended with %v, hint %q; want a fatal error that names the command", err, sinks.HintOf(err))
	}
	f.want("items", want...)
	f.refuse(false)
	f.ask(sinks.Request{Action: sinks.ActionRetry})
	f.start(cfg)
	for id := 21; id < 40; id++ {
		want = append(want, fmt.Sprintf("%d|%d|a", id, Poison))
	}
	f.want("items", want...)
}
