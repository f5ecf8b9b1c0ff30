package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailrace/tailrace/sinks"
)

// counter is a target that takes a second for each request and counts who is there.
type counter struct {
	mu    sync.Mutex
	now   map[string]int // by key
	all   int
	most  int
	twice bool                // two of one key at the same time
	came  []string            // ids, in order
	says  func(id string) int // status
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	ids := strings.FieldsFunc(string(body), func(r rune) bool { return r == ',' || r == '[' || r == ']' })
	c.mu.Lock()
	c.came = append(c.came, ids...)
	keys := make(map[string]bool)
	for _, id := range ids {
		keys[id[:1]] = true
	}
	for k := range keys {
		c.now[k]++
		c.twice = c.twice || c.now[k] > 1
	}
	c.all++
	c.most = max(c.most, c.all)
	c.mu.Unlock()
	time.Sleep(time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	for k := range keys {
		c.now[k]--
	}
	status := 200
	for _, id := range ids {
		if c.says != nil && c.says(id) != 200 {
			status = c.says(id)
		}
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}}, nil
}

// sinkTo is a sink whose requests go to a counter; its events are letters and numbers, the
// letter is the key.
func sinkTo(c *counter, concurrency, batch int) *Sink {
	c.now = make(map[string]int)
	s := &Sink{cfg: Config{Concurrency: concurrency, Batch: batch, Timeout: time.Minute}}
	s.client = &client{http: c, cfg: &s.cfg}
	return s
}

func eventsNamed(ids string) []*event {
	var out []*event
	for id := range strings.FieldsSeq(ids) {
		out = append(out, &event{change: &sinks.Change{Offset: int64(len(out))}, id: id, key: id[:1], url: &url.URL{Scheme: "https", Host: "x"}, body: []byte(id)})
	}
	return out
}

func TestKeysInOrderSideBySide(t *testing.T) {
	for _, c := range []struct {
		concurrency, batch int
		most, seconds      int
	}{
		{1, 1, 1, 9}, {2, 1, 2, 5}, {8, 1, 3, 4}, // three keys, one of which has four events
		{1, 100, 1, 1}, {1, 4, 1, 3}, {2, 2, 2, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			target := &counter{}
			s := sinkTo(target, c.concurrency, c.batch)
			began := time.Now()
			if err := s.deliver(t.Context(), eventsNamed("a1 a2 b1 a3 c1 b2 c2 a4 b3")); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); target.most != c.most || target.twice || took != time.Duration(c.seconds)*time.Second {
				t.Errorf("%d×%d: %d at once, want %d; %v, want %d s; twice %t", c.concurrency, c.batch, target.most, c.most, took, c.seconds, target.twice)
			}
			for _, key := range []string{"a1 a2 a3 a4", "b1 b2 b3", "c1 c2"} {
				var got []string
				for _, id := range target.came {
					if id[:1] == key[:1] {
						got = append(got, id)
					}
				}
				if strings.Join(got, " ") != key {
					t.Errorf("%d×%d: got %q, want %s", c.concurrency, c.batch, got, key)
				}
			}
		})
	}
}

// The change that is refused is named; nothing of its key follows it, what is under way is
// waited for.
func TestRefusedChange(t *testing.T) {
	for _, batch := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			target := &counter{says: func(id string) int {
				if id == "b2" {
					return 422
				}
				return 200
			}}
			s := sinkTo(target, 4, batch)
			events := eventsNamed("a1 b1 b2 c1 b3 a2 d1")
			var refused *sinks.Refused
			if err := s.deliver(t.Context(), events); !errors.As(err, &refused) || refused.Change != events[2].change || !sinks.IsFatal(err) || !strings.Contains(err.Error(), "422") {
				t.Fatalf("batch %d: %v", batch, err)
			}
			if alone := slices.Index(target.came, "b2"); slices.Contains(target.came[alone+1:], "b3") && batch == 1 {
				t.Errorf("after b2 came %q", target.came)
			}
			if target.all != 0 {
				t.Errorf("%d requests are still under way", target.all)
			}
		})
	}
}

// Another failure does not break off what is under way, but nothing is tried again for it.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &counter{says: func(id string) int { return map[string]int{"a1": 500, "b1": 401, "c1": 200}[id] }}
		s := sinkTo(target, 3, 1)
		began := time.Now()
		err := s.deliver(t.Context(), eventsNamed("a1 b1 c1"))
		if sinks.CodeOf(err) != sinks.CodeEnvironment || time.Since(began) > 2*time.Second || len(target.came) != 3 {
			t.Errorf("after %v: %v; came %q", time.Since(began), err, target.came)
		}
		target.came = nil
		if err = sinkTo(target, 1, 1).deliver(t.Context(), eventsNamed("b1 c1")); err == nil || len(target.came) != 1 {
			t.Errorf("%v; came %q", err, target.came)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := sinkTo(&counter{says: func(string) int { return 500 }}, 1, 1).deliver(ctx, eventsNamed("a1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that ends: %v", err)
		}
	})
}

func TestSegments(t *testing.T) {
	change := func(text string) *sinks.Change { // op, topic, position, row
		c := &sinks.Change{Op: text[0], Partition: sinks.Partition{Topic: text[1:2]}}
		c.Mark.Pos, c.Mark.Row = uint64(text[2]-'0'), uint64(text[3]-'0')
		return c
	}
	for in, want := range map[string]string{
		"": "", "cA11": "cA11", "cA11 uA12": "cA11 uA12", "tA13 tA12 tA14": "tA12", "cA11 tA12 tA13 uA14": "cA11|tA12|uA14",
		"tA11 tB12 tB13": "tA11|tB12", "tA11 tA21": "tA11|tA21", "cB11 tA12 tA13 cB14 tB15": "cB11|tA12|cB14|tB15",
	} {
		var changes []*sinks.Change
		for text := range strings.FieldsSeq(in) {
			changes = append(changes, change(text))
		}
		var got []string
		for _, segment := range segments(changes) {
			var texts []string
			for _, c := range segment {
				texts = append(texts, fmt.Sprintf("%c%s%d%d", c.Op, c.Partition.Topic, c.Mark.Pos, c.Mark.Row))
			}
			got = append(got, strings.Join(texts, " "))
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%s: got %q, want %s", in, got, want)
		}
	}
}
