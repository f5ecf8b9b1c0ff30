package webhook

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// expected is one event that must arrive, as a reader that is not ours finds it in the topic.
type expected struct {
	key string
	nth int // among the events of its key, from 0
}

// expect reads a capture's topics of changes to their ends and returns the events that must
// come of them, by their ids.
func expect(tb testing.TB, broker, prefix string, records int, topics ...string) map[string]expected {
	tb.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	out, of := make(map[string]expected), make(map[string]int)
	for n := 0; n < records; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			tb.Fatalf("after %d of %d records: %v", n, records, err)
		}
		for _, r := range fetches.Records() {
			n++
			if len(r.Value) == 0 {
				continue // a tombstone
			}
			key := fmt.Sprintf("%s %x", r.Topic, r.Key[5:])
			out[idOf(tb, prefix, r)] = expected{key, of[key]}
			of[key]++
		}
	}
	return out
}

// idOf makes an event's id of the header tailrace: version, flags, then epoch, file,
// position, row and n as varints.
func idOf(tb testing.TB, prefix string, r *kgo.Record) string {
	tb.Helper()
	for _, h := range r.Headers {
		if h.Key != "tailrace" {
			continue
		}
		id, rest := prefix, h.Value[2:]
		for range 4 {
			v, n := binary.Uvarint(rest)
			id, rest = fmt.Sprintf("%s:%d", id, v), rest[n:]
		}
		return id
	}
	tb.Fatal("a record without the header tailrace")
	return ""
}

// found is what the judge finds wrong.
type found struct {
	lost, wrong, changed, reordered, skippedAhead int
	repeated                                      int // which is allowed
	details                                       []string
}

func (f *found) note(n *int, format string, args ...any) {
	*n++
	if len(f.details) < 20 {
		f.details = append(f.details, fmt.Sprintf(format, args...))
	}
}

func (f *found) good() bool { return f.lost+f.wrong+f.changed+f.reordered+f.skippedAhead == 0 }

func (f *found) String() string {
	return fmt.Sprintf("lost %d, wrong %d, changed %d, reordered %d, ahead %d; repeated %d\n%s", f.lost, f.wrong, f.changed, f.reordered, f.skippedAhead, f.repeated, strings.Join(f.details, "\n"))
}

// judge compares what arrived with what must:
//
//	lost       an event was never acknowledged
//	wrong      an id that no change has
//	changed    an id came again with another body
//	reordered  within the life of one process an event came after a later one of its key
//	ahead      an event came before the one before it of its key was acknowledged, and
//	           not with it in one request
func judge(arrivals []arrival, want map[string]expected) *found {
	f := &found{}
	bodies, acked := make(map[string]string), make(map[string]bool)
	ackedTo := make(map[string]int)  // by key: how many events have been acknowledged
	last := make(map[[2]string]sent) // by life and key
	for _, a := range arrivals {
		e, known := want[a.id]
		if !known {
			f.note(&f.wrong, "wrong: %s", a.id)
			continue
		}
		if body, again := bodies[a.id]; again {
			f.repeated++
			if body != a.body {
				f.note(&f.changed, "changed: %s\n%s\n%s", a.id, body, a.body)
			}
		}
		bodies[a.id] = a.body
		of := [2]string{a.life, e.key}
		before, met := last[of]
		together := met && before.request == a.request
		switch {
		case together && e.nth != before.nth+1, met && !together && e.nth < before.first:
			f.note(&f.reordered, "reordered: %s, number %d of its key, after number %d", a.id, e.nth, before.nth)
		case !together && e.nth > ackedTo[e.key]:
			f.note(&f.skippedAhead, "ahead: %s, number %d of its key, when %d were acknowledged", a.id, e.nth, ackedTo[e.key])
		}
		if !together {
			before.first = e.nth
		}
		last[of] = sent{a.request, before.first, e.nth}
		if a.acked {
			acked[a.id] = true
			ackedTo[e.key] = max(ackedTo[e.key], e.nth+1)
		}
	}
	for id, e := range want {
		if !acked[id] {
			f.note(&f.lost, "lost: %s, number %d of its key", id, e.nth)
		}
	}
	return f
}

// sent is what a process sent last of a key: in which request, and there from which to
// which of the key's events.
type sent struct{ request, first, nth int }

// A judge that sees nothing would prove nothing: each fault must be found, a clean log not.
func TestJudge(t *testing.T) {
	want := map[string]expected{"a0": {"a", 0}, "a1": {"a", 1}, "a2": {"a", 2}, "b0": {"b", 0}}
	// a0 acknowledged, a0- not, a0' with another body, +a1 in one request with the one before, | another life
	in := func(ids string) []arrival {
		var out []arrival
		life := 0
		for i, id := range strings.Fields(ids) {
			if id == "|" {
				life++
				continue
			}
			a := arrival{id: strings.Trim(id, "+-'"), acked: !strings.HasSuffix(id, "-"), life: fmt.Sprint(life), request: i}
			if strings.HasPrefix(id, "+") {
				a.request = out[len(out)-1].request
			}
			if strings.HasSuffix(id, "'") {
				a.body = "other"
			}
			out = append(out, a)
		}
		return out
	}
	for ids, check := range map[string]func(*found) int{
		"a0 a1 a2":                func(f *found) int { return f.lost },
		"a0 a1 a2 b0-":            func(f *found) int { return f.lost },
		"a0 a1 a2 b0 c":           func(f *found) int { return f.wrong },
		"a0 a0' a1 a2 b0":         func(f *found) int { return f.changed },
		"a0 a1 a0 a2 b0":          func(f *found) int { return f.reordered },
		"a0 a2 a1 b0":             func(f *found) int { return f.reordered },
		"a0- a1 a0 a2 b0":         func(f *found) int { return f.skippedAhead },
		"a0 a1- | a2- a1 a2 b0":   func(f *found) int { return f.skippedAhead },
		"a0 a1 a2- | a1 a0 a2 b0": func(f *found) int { return f.reordered },
		"a0 +b0 +a2 a1":           func(f *found) int { return f.reordered },
		"a1 +a0 a2 b0":            func(f *found) int { return f.reordered },
		"a0- +a1- a2 a0 a1 b0":    func(f *found) int { return f.skippedAhead },
	} {
		if f := judge(in(ids), want); check(f) == 0 {
			t.Errorf("%s: nothing found: %v", ids, f)
		}
	}
	for _, ids := range []string{"a0 b0 a1 a2", "a0- a0 a1- b0- a1 a2 a2 b0", "a0 a1 | a0 a1 a2- | a2 b0", "a0- | a0 a1 a2 | a0 a1 a2 b0", "a0- +a1- a0 +a1 a2 +b0", "a0- +b0- +a1- a0 b0 a1 a2"} {
		if f := judge(in(ids), want); !f.good() {
			t.Errorf("%s: %v", ids, f)
		}
	}
}
