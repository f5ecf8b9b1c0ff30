package audit

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/embedded"
)

func newClient(t *testing.T) *stream.Client {
	t.Helper()
	b, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	c, err := stream.NewClient(stream.Config{Brokers: []string{b.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func entry(id string) Entry {
	return Entry{ID: id, At: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC), By: "ann@host", Action: "capture resolve", Of: "capture shop", Phase: Decided,
		Reason: "the <slot> is gone", Effect: []byte(`{"way": "new-epoch"}`)}
}

func TestChain(t *testing.T) {
	c := newClient(t)
	if l, err := Read(t.Context(), c); err != nil || len(l.Entries) != 0 || l.Head() != "" {
		t.Fatalf("got %+v, %v", l, err)
	}
	var last *Chained
	for i := range 5 {
		at, err := Append(t.Context(), c, entry(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if at.Seq != uint64(i+1) || last != nil && at.Prev != last.Hash {
			t.Errorf("entry %d is %+v", i, at)
		}
		last = at
	}
	l, err := Read(t.Context(), c)
	if err != nil || len(l.Entries) != 5 || l.Head() != last.Hash {
		t.Fatalf("got %d entries, %v", len(l.Entries), err)
	}
	if e := l.Entries[0].Entry; e.Reason != entry("").Reason || string(e.Effect) != `{"way":"new-epoch"}` || !e.At.Equal(entry("").At) {
		t.Errorf("got %+v", e)
	}
}

// Who loses the race for a place takes the next one.
func TestAppendAtTheSameTime(t *testing.T) {
	c := newClient(t)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 5 {
				if _, err := Append(t.Context(), c, entry(fmt.Sprint(i, ".", j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	l, err := Read(t.Context(), c)
	if err != nil || len(l.Entries) != 20 {
		t.Fatalf("got %d entries, %v", len(l.Entries), err)
	}
}

// forge copies the log, changed, into a new topic of the same name.
func forge(t *testing.T, c *stream.Client, change func(i int, value string) []string) {
	t.Helper()
	var values []string
	if _, err := c.ReadToEnd(t.Context(), Topic, 0, 0, func(r *stream.Record) error {
		values = append(values, change(int(r.Offset), string(r.Value))...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteTopic(t.Context(), Topic); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnsureTopic(t.Context(), stream.TopicSpec{Name: Topic, Partitions: 1, Create: true}); err != nil {
		t.Fatal(err)
	}
	prod, err := c.NewProducer(t.Context(), stream.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		var b stream.Batch
		if err := b.Append(1, nil, []byte(v), nil); err != nil {
			t.Fatal(err)
		}
		if err := b.Seal(stream.None, false); err != nil {
			t.Fatal(err)
		}
		if err := prod.Produce(t.Context(), []*stream.Outgoing{{Topic: Topic, Batch: &b}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestForgeries(t *testing.T) {
	for name, change := range map[string]func(i int, v string) []string{
		"changed":          func(i int, v string) []string { return []string{strings.Replace(v, `"id":"2"`, `"id":"9"`, 1)} },
		"first taken out":  func(i int, v string) []string { return []string{v}[:min(i, 1)] },
		"one taken out":    func(i int, v string) []string { return []string{v}[:map[bool]int{true: 0, false: 1}[i == 2]] },
		"foreign":          func(i int, v string) []string { return []string{v, "hello"} },
		"more in an entry": func(i int, v string) []string { return []string{strings.Replace(v, `"hash"`, `"x":1,"hash"`, 1)} },
		"changed, with a hash that fits": func(i int, v string) []string {
			if i != 2 {
				return []string{v}
			}
			at := strings.Index(v, `"entry":`) + len(`"entry":`)
			inner := strings.Replace(v[at:len(v)-1], "ann", "eve", 1)
			return []string{`{"hash":"` + hashOf([]byte(inner)) + `","entry":` + inner + `}`}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t)
			for i := range 5 {
				if _, err := Append(t.Context(), c, entry(fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			forge(t, c, change)
			_, err := Read(t.Context(), c)
			var broken *BrokenError
			if !errors.As(err, &broken) || broken.Hint() == "" || !broken.Fatal() {
				t.Fatalf("got %v", err)
			}
			if _, err := Append(t.Context(), c, entry("next")); !errors.As(err, &broken) {
				t.Errorf("it takes another entry: %v", err)
			}
		})
	}
}
