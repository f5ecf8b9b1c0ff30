package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/internal/judge"
)

// small is a run that fits into a test suite.
func small(t *testing.T, o options) *result {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir()) // what a failed run keeps goes there
	if err := os.Chmod(os.TempDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r.print(&out)
	t.Log(out.String())
	return r
}

func TestNothingIsLostRepeatedOrTorn(t *testing.T) {
	for _, broker := range []string{"embedded", "kafka"} {
		t.Run(broker, func(t *testing.T) {
			r := small(t, options{broker: broker, kills: 14, changes: 5000, seed: rand.Uint64() >> 32, rate: 600})
			if !r.good() || r.Kills != 14 || r.Changes < 5000 || r.Records < r.Changes {
				t.Error("the run is not clean, see above")
			}
		})
	}
}

// mutantRuns is how often a mutant may get away: whether a short run shows it is a matter of
// where its kills and commits fall. Of the mutants of backfills ignore-arm is the hardest:
// about one run in four does not show it.
const mutantRuns = 6

// Every mutant of the product must be caught: else a clean run proves nothing.
func TestMutantsAreCaught(t *testing.T) {
	for _, mutant := range mutants {
		t.Run(mutant, func(t *testing.T) {
			for range mutantRuns {
				o := options{broker: "embedded", kills: 18, changes: 9000, seed: rand.Uint64() >> 32, rate: 600, mutant: mutant}
				if !small(t, o).good() {
					return
				}
			}
			t.Error("the mutant survived")
		})
	}
}

// Some backfills are under way at every kill.
func TestBackfillsGoOn(t *testing.T) {
	for broker, kills := range map[string]int{"embedded": 8, "kafka": 5} {
		t.Run(broker, func(t *testing.T) {
			r := small(t, shortBackfill(broker, kills))
			if !r.good() || r.Kills != kills || r.UnderWay != kills || r.Rows < 5000 || r.Done < 6 || r.CommitsHeld == 0 || r.LogHeld == 0 {
				t.Error("the run is not clean, or proves nothing, see above")
			}
			if broker == "kafka" && (r.Again > 0 || r.TornChunks > 0 || r.Cuts != kills) {
				t.Error("progress is not committed together with its rows")
			}
		})
	}
}

func shortBackfill(broker string, kills int) options {
	return options{broker: broker, backfill: true, rows: 2000, readRate: 1500, kills: kills, changes: 3000, seed: rand.Uint64() >> 32, rate: 600}
}

func TestMutantsOfBackfillsAreCaught(t *testing.T) {
	for _, mutant := range backfillMutants {
		t.Run(mutant, func(t *testing.T) {
			o := shortBackfill("embedded", 8)
			switch o.mutant = mutant; mutant {
			case "progress-first": // seen when the kill comes between the two
				o.failpoint = "chunk-written"
			case "forget-progress": // when a run reads more than may be in flight
				o.readRate = 400
			}
			for range mutantRuns {
				o.seed = rand.Uint64() >> 32
				r := small(t, o)
				if r.good() {
					continue
				}
				found := map[string]int{"write-at-once": r.Reordered, "ignore-arm": r.Stale, "forget-progress": r.TooMany, "progress-first": r.Unread + r.Different, "chunk-lost": r.Unread + r.Different}
				if found[mutant] == 0 {
					t.Error("something else was found than what the mutant does")
				}
				return
			}
			t.Error("the mutant survived")
		})
	}
}

func TestParse(t *testing.T) {
	for _, args := range []string{"-broker redis", "-mutant none", "-failpoint nowhere", "-broker embedded -failpoint in-end", "-changes 0", "-rate -1", "-nonsense",
		"-target mysql", "-mutant per-key", "-failpoint sink-received", "-mutant ignore-arm", "-failpoint chunk-read", "-backfill -target postgres",
		"-backfill -rows 0", "-backfill -read-rate 3", "-backfill -mutant per-key"} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s passes", args)
		}
	}
	o, err := parse(strings.Fields("-broker kafka -failpoint in-end -kills 3 -seed 9"))
	if err != nil || len(o.failpoints()) != 1 || o.kills != 3 || o.seed != 9 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parse(strings.Fields("-target postgres -mutant per-key")); err != nil || len(o.failpoints()) != 9 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parse(strings.Fields("-backfill -broker kafka -mutant ignore-arm")); err != nil || len(o.failpoints()) != 8 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, _ := parse(nil); len(o.failpoints()) != 5 || o.kills != 100 || o.changes != 50000 {
		t.Errorf("defaults: %+v", o)
	}
}

// Every failpoint must come up, at different passages, and kills must come early and late.
func TestPlanDrawsEverything(t *testing.T) {
	o := options{broker: "kafka"}
	p := plan{rng: rand.New(rand.NewPCG(1, 1)), from: o.failpoints()}
	count, passages := map[string]int{}, map[int]bool{}
	early, late := 0, 0
	for range 120 {
		a := p.draw()
		count[a.failpoint]++
		switch {
		case a.failpoint != "":
			passages[a.k] = true
		case a.after < 400*time.Millisecond:
			early++
		default:
			late++
		}
		if (len(a.env()) == 1) != (a.failpoint != "") || a.failpoint != "" && a.k < 1 {
			t.Fatalf("%+v: %q", a, a.env())
		}
	}
	for _, name := range failpoints {
		if count[name] != 10 {
			t.Errorf("%s came up %d times of 60", name, count[name])
		}
	}
	if early < 10 || late < 20 || len(passages) < 15 {
		t.Errorf("%d early, %d late kills, %d different passages", early, late, len(passages))
	}
}

func TestResult(t *testing.T) {
	clean := newResult(options{broker: "kafka", seed: 7})
	clean.take(&judge.Verdict{Records: 10})
	if !clean.good() {
		t.Error("a clean result is not good")
	}
	for _, v := range []judge.Verdict{{Lost: 1}, {Repeated: 1}, {Gaps: 1}, {Reordered: 1}, {Torn: 1}, {Wrong: 1}} {
		r := newResult(options{broker: "kafka"})
		r.take(&v)
		if r.good() {
			t.Errorf("good in spite of %+v", v)
		}
	}
	for _, v := range []verdict{{Equal: true, Half: 1}, {Equal: false}} {
		r := newResult(options{broker: "kafka", target: "postgres"})
		if *r.verdict = v; r.good() {
			t.Errorf("good in spite of %+v", v)
		}
	}
	for _, v := range []judge.ReadVerdict{{Stale: 1}, {TooMany: 1}, {Unread: 1}, {Different: 1}} {
		r := newResult(options{broker: "kafka", backfill: true})
		if r.take(&judge.Verdict{ReadVerdict: v}); r.good() {
			t.Errorf("good in spite of %+v", v)
		}
	}
	stopped := newResult(options{broker: "kafka"})
	stopped.Stopped = "exit status 1"
	if stopped.good() {
		t.Error("good in spite of a stop")
	}
	var out bytes.Buffer
	clean.print(&out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var fields map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"broker", "kills", "failpoints", "changes", "lost", "repeated", "gaps", "reordered", "torn", "seed"} {
		if _, there := fields[name]; !there {
			t.Errorf("the last line lacks %s", name)
		}
	}
}

func TestWhy(t *testing.T) {
	if got := why("x\nerror: broken\nhint: mend it\n"); got != "error: broken" {
		t.Errorf("%q", got)
	}
	if got := why("first\nlast\n\n"); got != "last" {
		t.Errorf("%q", got)
	}
}
