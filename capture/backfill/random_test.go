package backfill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sim is a random run in virtual time: writers, whose commits wait for a synchronous standby
// that is absent now and then; the tailer at its own pace; readers, each of a range of keys.
type sim struct {
	simConfig
	seed uint64

	mu sync.Mutex // of the world, with all that belongs to the tailer
	world
	asks    chan func()      // what the tailer is to do between two steps
	opens   chan chan opened // windows that are asked for
	told    bool             // about transactions in progress
	armed   []*simReader     // whose chunks wait to be written
	present bool             // the standby
	stormy  bool             // the storm is over

	rereads, gaveUp, renewed, versions, torn, waited int
	trace                                            []string
	background                                       sync.WaitGroup
}

type simConfig struct {
	writers, commits int // of each
	readers          int
	late             time.Duration // when the tracker begins
	pause            time.Duration // of readers between two steps, at most
	big              bool          // keys are long: a few of them are all that a tracker holds
	storm            bool          // once there are more commits than a tracker holds
}

// opened is a window of a tracker.
type opened struct {
	tracker *Tracker
	window  *Window
}

// simReader reads a range in chunks.
type simReader struct {
	s        *sim
	rnd      *rand.Rand
	from, to int
	progress Progress
	code     code // makes keys
	opened
	chunk  Chunk
	rows   Rows
	saw    table
	until  int // the chunk is of the keys before it
	schema int
	answer chan bool
}

func newSim(seed uint64, m mutant) *sim {
	s := &sim{seed: seed, asks: make(chan func()), opens: make(chan chan opened), present: true}
	s.code = code{t: &Tracker{}, mutant: m}
	rnd := s.random(0)
	s.simConfig = simConfig{
		writers: 1 + rnd.IntN(5), commits: 4 + rnd.IntN(12), readers: 1 + rnd.IntN(4),
		late: time.Duration(rnd.Int64N(int64(60 * time.Millisecond))), pause: 3 * time.Millisecond,
		big: seed%50 == 7, storm: seed%50 == 13,
	}
	if s.big {
		s.code.pad, s.pause = 3<<19, 40*time.Millisecond
	}
	var keys []int
	for k := range modelKeys {
		if rnd.IntN(3) > 0 {
			keys = append(keys, k)
		}
	}
	s.fill(keys...)
	return s
}

func (s *sim) random(n uint64) *rand.Rand { return rand.New(rand.NewPCG(s.seed, n)) }

// note is called with the lock held, as all that knows of the world.
func (s *sim) note(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

func nap(rnd *rand.Rand, most time.Duration) { time.Sleep(time.Duration(1 + rnd.Int64N(int64(most)))) }

// locked does something with the world.
func (s *sim) locked(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

// run is the whole run. It returns what was wrong.
func (s *sim) run() string {
	ctx, cancel := context.WithCancel(context.Background())
	var tailer, writers, readers sync.WaitGroup
	tailer.Go(func() { s.tail(ctx) })
	tailer.Go(func() { s.standby(ctx) })
	for i := range s.writers {
		writers.Go(func() { s.writer(s.random(uint64(100 + i))) })
	}
	for i := range s.readers {
		r := &simReader{s: s, rnd: s.random(uint64(200 + i)), answer: make(chan bool), code: code{mutant: s.code.mutant, pad: s.code.pad},
			from: i * modelKeys / s.readers, to: (i + 1) * modelKeys / s.readers}
		readers.Go(r.read)
	}
	writers.Wait()
	readers.Wait()
	for read := false; !read; time.Sleep(time.Millisecond) {
		s.locked(func() { read = s.decoded == len(s.log) })
	}
	cancel()
	tailer.Wait()
	s.background.Wait()
	if n := len(s.code.t.reading) + len(s.code.t.armed); n > 0 || s.code.t.held > 0 {
		s.fail("%d windows and %d bytes of keys are left", n, s.code.t.held)
	}
	s.same()
	if s.bad == "" {
		return ""
	}
	return fmt.Sprintf("seed %d: %s\n\t%s", s.seed, s.bad, strings.Join(s.trace, "\n\t"))
}

// standby comes and goes.
func (s *sim) standby(ctx context.Context) {
	rnd := s.random(1)
	for ctx.Err() == nil {
		nap(rnd, 50*time.Millisecond)
		s.locked(func() { s.present = false })
		nap(rnd, 100*time.Millisecond)
		s.locked(func() { s.present = true })
	}
}

// writer commits, and waits until it is visible.
func (s *sim) writer(rnd *rand.Rand) {
	for range s.commits {
		nap(rnd, 20*time.Millisecond)
		n := -1
		for tries := 0; n < 0 && tries < 50; tries++ {
			changes := someChanges(rnd)
			s.locked(func() {
				if s.commit(changes) {
					n = len(s.log) - 1
					s.note("%d is logged: %v", n, changes)
				}
			})
			nap(rnd, time.Millisecond)
		}
		if n < 0 {
			continue
		}
		for wait := rnd.IntN(2) == 0; wait; nap(rnd, 5*time.Millisecond) {
			s.locked(func() { wait = !s.present })
		}
		s.locked(func() {
			s.show(n)
			s.note("%d is visible", n)
		})
	}
}

// someChanges makes up a transaction. Half of them are of three hot keys.
func someChanges(rnd *rand.Rand) []change {
	switch rnd.IntN(60) {
	case 0:
		return []change{{op: opTruncate}}
	case 1:
		return []change{{op: opTruncate}, {op: opInsert, key: rnd.IntN(modelKeys)}}
	case 2, 3:
		return []change{{op: opAlter}}
	}
	keys := modelKeys
	if rnd.IntN(2) == 0 {
		keys = 3
	}
	changes := make([]change, 1+rnd.IntN(4))
	for i := range changes {
		changes[i] = change{op: op(rnd.IntN(int(opMove) + 1)), key: rnd.IntN(keys), to: rnd.IntN(modelKeys)}
	}
	return changes
}

// tail is the goroutine that reads the log; trackers, windows and what is written are its.
func (s *sim) tail(ctx context.Context) {
	rnd := s.random(2)
	begin := time.After(s.late)
	pace := time.Duration(1 + rnd.Int64N(int64(5*time.Millisecond)))
	for {
		opens := s.opens
		if s.open || !s.told {
			opens = nil
		}
		select {
		case do := <-s.asks:
			do()
		case window := <-opens:
			window <- opened{s.code.t, s.code.t.Open()}
		case <-begin:
			if s.open {
				begin = time.After(time.Millisecond)
				continue
			}
			s.newTracker(rnd)
		case <-time.After(time.Duration(1 + rnd.Int64N(int64(pace)))):
			s.locked(func() { s.step(rnd) })
			if rnd.IntN(100) == 0 {
				nap(rnd, 50*time.Millisecond) // another table keeps it busy
			}
		case <-ctx.Done():
			return
		}
		s.locked(s.writeReady)
	}
}

// newTracker begins to note commits, and has transactions in progress asked for.
func (s *sim) newTracker(rnd *rand.Rand) {
	s.code.t, s.noting, s.told = &Tracker{}, true, false
	one, two := time.Duration(rnd.Int64N(int64(5*time.Millisecond))), time.Duration(rnd.Int64N(int64(5*time.Millisecond)))
	s.locked(func() { s.note("a tracker begins before %d", s.decoded) })
	s.background.Go(func() {
		time.Sleep(one)
		var xids []uint64
		s.locked(func() { xids = s.invisible() })
		time.Sleep(two)
		s.asks <- func() {
			s.code.running(xids)
			s.told = true
			s.locked(func() { s.note("in progress: XIDs %v", xids) })
		}
	})
}

// step decodes something, if there is something.
func (s *sim) step(rnd *rand.Rand) {
	if s.decoded == len(s.log) {
		return
	}
	if !s.open {
		s.note("%d is decoded", s.decoded)
		if s.noting && rnd.IntN(20) == 0 {
			s.code.t.Version(schemaName(s.schema)) // as a log does after a while
		}
	}
	s.decode()
	if s.storm && !s.stormy && s.decoded > 3 && !s.open && len(s.code.t.reading) > 0 {
		s.stormy = true
		s.note("more commits than a tracker holds")
		for range maxNotes {
			s.code.t.Begin(Commit{XID: 1})
			s.code.t.End()
		}
	}
	if s.noting && !s.open && s.code.stale() {
		s.renew(rnd)
	}
}

// renew gives up all windows and begins with another tracker.
func (s *sim) renew(rnd *rand.Rand) {
	s.renewed++
	for _, r := range s.armed {
		r.refuse()
	}
	s.armed = s.armed[:0]
	s.mu.Unlock()
	s.newTracker(rnd)
	s.mu.Lock()
}

// writeReady writes the chunks whose time has come.
func (s *sim) writeReady() {
	kept := s.armed[:0]
	for _, r := range s.armed {
		switch {
		case !s.open && !s.code.holds(r.window, schemaName(r.schema)):
			s.versions++
			s.code.t.Close(r.window)
			r.refuse()
		case !s.open && r.window.Torn() > 0:
			s.torn++
			s.code.t.Close(r.window)
			r.refuse()
		case !s.open && s.code.written(&r.chunk, s.read()):
			if r.schema < s.schema {
				s.fail("rows of version %s after the log's %s", schemaName(r.schema), schemaName(s.schema))
			}
			s.note("keys %d to %d are written", r.from, r.until-1)
			s.write(&r.chunk, &r.saw, r.from, r.until)
			s.code.t.Close(r.window)
			r.progress.Advance(&r.chunk)
			r.answer <- true
		default:
			kept = append(kept, r)
		}
	}
	s.armed = kept
}

func (r *simReader) refuse() {
	r.s.note("keys %d to %d are given up", r.from, r.until-1)
	r.answer <- false
}

// read reads the range.
func (r *simReader) read() {
	backoff := time.Millisecond
	for tries := 0; !r.progress.Done; tries++ {
		if tries == 10_000 {
			r.s.locked(func() { r.s.fail("keys from %d: never written", r.from) })
			return
		}
		nap(r.rnd, 5*time.Millisecond)
		windows := make(chan opened)
		r.s.opens <- windows
		r.opened = <-windows
		nap(r.rnd, r.s.pause)
		r.statement()
		nap(r.rnd, r.s.pause)
		r.s.locked(func() { r.chunk.End = r.s.end() })
		nap(r.rnd, r.s.pause)
		r.s.asks <- r.arm
		if <-r.answer {
			r.from = r.until
			backoff = time.Millisecond
			continue
		}
		r.s.locked(func() { r.s.rereads++ })
		nap(r.rnd, backoff)
		backoff = min(2*backoff, 100*time.Millisecond)
	}
	if r.from != r.to {
		r.s.locked(func() { r.s.fail("a range ends before %d, not %d", r.from, r.to) })
	}
}

// statement reads the next rows of the range.
func (r *simReader) statement() {
	s := r.s
	for altering := true; altering; time.Sleep(time.Millisecond) {
		// An ALTER TABLE holds a lock against statements until it is visible.
		s.locked(func() {
			if altering = s.altering(); altering {
				return
			}
			var lacks uint64
			if n := len(s.log); n > 0 && r.rnd.IntN(10) == 0 {
				lacks = 1 << r.rnd.IntN(min(n, 64))
			}
			r.saw, r.schema = s.world.seen, s.schemaSeen()
			limit, last := 1+r.rnd.IntN(4), -1
			r.until, r.chunk = r.from, Chunk{Rows: &r.rows}
			for ; r.until < r.to && limit > 0; r.until++ {
				if r.saw[r.until] != (row{}) {
					limit--
					last = r.until
				}
			}
			if r.chunk.Whole = r.until == r.to; last >= 0 {
				r.chunk.Last = []string{strconv.Itoa(last)}
			}
			r.chunk.Seen = r.code.seen(s.visible(lacks), len(s.log))
			s.note("keys %d to %d are read, %v", r.from, r.until-1, r.saw)
		})
	}
	r.code.fill(&r.rows, &r.saw, r.from, r.until)
}

// arm is called by the tailer.
func (r *simReader) arm() {
	s := r.s
	if r.tracker != s.code.t {
		r.answerNo()
		return
	}
	if !slices.Contains(s.code.t.reading, r.window) {
		s.gaveUp++
	}
	if s.code.t.Waiting() > 0 {
		s.waited++
	}
	if !s.code.arm(r.window, &r.chunk, schemaName(r.schema)) {
		r.answerNo()
		return
	}
	s.armed = append(s.armed, r)
}

func (r *simReader) answerNo() {
	r.s.locked(func() { r.s.note("keys %d to %d are of no use", r.from, r.until-1) })
	r.answer <- false
}

// simTotal is what some runs came to.
type simTotal struct{ emitted, dropped, rereads, gaveUp, renewed, versions, torn, waited int }

func simulate(t *testing.T, seed uint64, m mutant, total *simTotal) (bad string) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(seed, m)
		bad = s.run()
		total.emitted += s.emitted
		total.dropped += s.dropped
		total.rereads += s.rereads
		total.gaveUp += s.gaveUp
		total.renewed += s.renewed
		total.versions += s.versions
		total.torn += s.torn
		total.waited += s.waited
	})
	return bad
}

// TestRandomRuns tries longer runs than every order of could be tried.
func TestRandomRuns(t *testing.T) {
	seeds := uint64(2500)
	if raceDetector {
		seeds = 500
	}
	var n simTotal
	for seed := range seeds {
		if bad := simulate(t, seed, right, &n); bad != "" {
			t.Fatal(bad)
		}
	}
	t.Logf("%d seeds: %+v", seeds, n)
	if n.emitted == 0 || n.dropped == 0 || n.rereads == 0 || n.gaveUp == 0 || n.renewed == 0 || n.versions == 0 || n.torn == 0 || n.waited == 0 {
		t.Error("these runs try too little")
	}
}

// TestRandomMutants proves that longer runs find what is wrong, too.
func TestRandomMutants(t *testing.T) {
	for _, m := range []mutant{marks, noReread, atOnce, noRunning, noTruncate, newKey, pruneAll, framed, runningOnce,
		skipAll, midCommit, otherVersion, noGiveUp, noStale, allWhole} {
		t.Run(string(m), func(t *testing.T) {
			var n simTotal
			for seed := range uint64(3000) {
				if m == noGiveUp {
					seed = 50*seed + 7
				}
				if m == noStale {
					seed = 50*seed + 13
				}
				if bad := simulate(t, seed, m, &n); bad != "" {
					t.Log(bad[:strings.IndexByte(bad, '\n')])
					return
				}
			}
			t.Error("green")
		})
	}
}
