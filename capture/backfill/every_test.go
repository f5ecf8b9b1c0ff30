package backfill

import (
	"math/rand/v2"
	"testing"
)

// family is scenarios that are tried in every order, or, if there are too many of those, in
// as many as sampled says for each.
type family struct {
	name    string
	all     []*scenario
	sampled int
	slow    bool // left out under the race detector, which finds nothing in one goroutine
}

func families() []family {
	return []family{
		{name: "one commit", all: singles(scenario{readers: 1, starts: true, again: 2})},
		{name: "one commit, decoded in steps", all: singles(scenario{readers: 1, starts: true, split: true, again: 1})},
		{name: "one commit that seen-sets lack", all: singles(scenario{readers: 1, starts: true, again: 1, lacks: 1})},
		{name: "one commit, tracker late", all: singles(scenario{readers: 1, starts: true, late: true, again: 1})},
		{name: "one commit, early in progress", all: singles(scenario{readers: 1, late: true, early: true, again: 1})},
		{name: "one commit, two chunks", all: singles(scenario{readers: 2}), slow: true},
		{name: "one commit, two chunks, tracker late", all: singles(scenario{readers: 2, late: true}), slow: true},
		{name: "two commits", all: pairs(scenario{readers: 1, starts: true})},
		{name: "two commits, read again", all: pairs(scenario{readers: 1, again: 1}), slow: true},
		{name: "two commits, the first lacks", all: pairs(scenario{readers: 1, lacks: 1}), slow: true},
		{name: "two commits, the second lacks", all: pairs(scenario{readers: 1, lacks: 2}), slow: true},
		{name: "two commits that seen-sets lack", all: pairs(scenario{readers: 1, lacks: 3}), slow: true},
		{name: "two commits, tracker late", all: pairs(scenario{readers: 1, late: true}), slow: true},
		{name: "two commits, decoded in steps", all: related(pairs(scenario{readers: 1, split: true})), slow: true},
		{name: "two commits, two chunks", all: pairs(scenario{readers: 2, split: true, again: 1}), sampled: 3_000},
		{name: "two commits, two chunks, tracker late", all: pairs(scenario{readers: 2, split: true, late: true, again: 1}), sampled: 6_000},
	}
}

// run tries the orders of a family until one is bad.
func (f *family) run(o *order, m mutant, n *tally) (bad string) {
	for i, s := range f.all {
		if f.sampled > 0 {
			orders := f.sampled
			if raceDetector {
				orders /= 10
			}
			bad = s.some(o, m, n, rand.New(rand.NewPCG(uint64(i), 1)), orders)
		} else {
			bad = s.every(o, m, n)
		}
		if bad != "" {
			return bad
		}
	}
	return ""
}

// TestEveryOrder tries commits and chunks in every order in which their events can come.
func TestEveryOrder(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			if f.slow && raceDetector {
				return
			}
			var n tally
			if bad := f.run(&order{}, right, &n); bad != "" {
				t.Fatal(bad)
			}
			t.Logf("%d scenarios: %+v", len(f.all), n)
			if n.orders < 100*len(f.all) || n.rereads == 0 || n.dropped == 0 || n.emitted == 0 {
				t.Error("these orders try too little")
			}
		})
	}
}

// TestMutants proves the model: each thing that can be wrong must go red in some order.
func TestMutants(t *testing.T) {
	for _, m := range []mutant{marks, noReread, atOnce, noRunning, noTruncate, newKey, pruneAll, framed, runningOnce,
		skipAll, midCommit, allWhole} {
		t.Run(string(m), func(t *testing.T) {
			var n tally
			for _, f := range families() {
				if f.slow && raceDetector {
					continue
				}
				if bad := f.run(&order{}, m, &n); bad != "" {
					t.Logf("%s, after %d orders: %s", f.name, n.orders, bad)
					return
				}
			}
			t.Errorf("green in all of %d orders", n.orders)
		})
	}
}

// TestPaths: every path through choices of different widths, each once.
func TestPaths(t *testing.T) {
	var p paths
	got := map[[3]int]bool{}
	for more := true; more; more = p.next() {
		var at [3]int
		at[0] = p.pick(3)
		at[1] = p.pick(at[0] + 1) // 1, 2 or 3 ways, the first without a choice
		at[2] = p.pick(2)
		if got[at] {
			t.Fatalf("%v came twice", at)
		}
		got[at] = true
	}
	if len(got) != (1+2+3)*2 {
		t.Errorf("%d paths", len(got))
	}
}
