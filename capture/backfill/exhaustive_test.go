package backfill

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// scenario says what happens. Every order in which it can happen is tried.
type scenario struct {
	ops     []change // one commit each, logged in this order
	readers int      // chunks that are read at once; of two, the first is of key 0
	starts  bool     // the statement's start is an event of its own, not one with its snapshot
	split   bool     // a commit is decoded change by change, with other events in between
	late    bool     // the tracker begins at any time, after commits were decoded too
	early   bool     // transactions in progress are those too that are not yet logged
	again   int      // times that a chunk that is of no use is read again amid all this
	lacks   uint64   // commits that seen-sets lack though they were seen
}

func (s *scenario) String() string {
	flags := ""
	for _, f := range []struct {
		on   bool
		name string
	}{{s.split, " split"}, {s.late, " late"}, {s.early, " early"}} {
		if f.on {
			flags += f.name
		}
	}
	return fmt.Sprintf("%v, %d readers%s, seen-sets lack %b", s.ops, s.readers, flags, s.lacks)
}

// stage is what a reader does next.
type stage uint8

const (
	toOpen stage = iota
	toStart
	toRead
	toEnd
	toArm
	toWrite
	written
	useless // Arm has said so: to be read again at the end
)

type event struct {
	what string
	n    int
}

func (e event) String() string { return fmt.Sprintf("%s %d", e.what, e.n) }

// reader reads one chunk.
type reader struct {
	from, to int
	stage    stage
	again    int
	window   *Window
	chunk    Chunk
	rows     Rows
	saw      table
	seen     seenBits
	low      int // where the log ended when the window was opened
}

// order is one order of the events of a scenario.
type order struct {
	*scenario
	world
	readers []reader
	next    int // of ops
	asked   []uint64
	stage   int // of the tracker: 0 not begun, 1 begun, 2 asked, 3 told
	rereads int
	trace   []event
	events  []event
}

func (o *order) reset(s *scenario, m mutant) {
	readers := o.readers
	if cap(readers) < s.readers {
		readers = make([]reader, s.readers)
	}
	*o = order{scenario: s, readers: readers[:s.readers], trace: o.trace[:0], events: o.events[:0],
		world: world{log: o.log[:0], written: o.written, code: code{t: &Tracker{}, mutant: m, buf: o.code.buf}}}
	o.fill(0, 1)
	for i := range o.readers {
		r := &o.readers[i]
		*r = reader{from: 0, to: 3, again: s.again, rows: r.rows}
		if s.readers == 2 {
			r.from, r.to = i, 1+2*i
		}
	}
	if !s.late {
		o.noting, o.stage = true, 3
	}
}

// enabled lists what can happen now.
func (o *order) enabled() []event {
	o.events = o.events[:0]
	add := func(what string, n int) { o.events = append(o.events, event{what, n}) }
	if o.next < len(o.ops) && o.free(o.ops[o.next:o.next+1]) {
		add("logged", o.next)
	}
	for i := range o.log {
		if !o.log[i].visible {
			add("visible", i)
		}
	}
	if o.decoded < len(o.log) {
		add("decoded", o.decoded)
	}
	// The tracker begins between two commits.
	if o.stage == 1 || o.stage == 2 || o.stage == 0 && !o.open {
		add([...]string{"tracker begins", "running asked", "running told"}[o.stage], 0)
	}
	for i := range o.readers {
		if what := o.readerEvent(&o.readers[i]); what != "" {
			add(what, i)
		}
	}
	return o.events
}

func (o *order) readerEvent(r *reader) string {
	switch r.stage {
	case toOpen:
		if o.stage == 3 && !o.open {
			return "opened"
		}
	case toStart:
		return "starts"
	case toRead:
		return "snapshot"
	case toEnd:
		return "log end"
	case toArm:
		return "armed"
	case toWrite:
		if !o.open && o.code.written(&r.chunk, o.read()) {
			return "written"
		}
	}
	return ""
}

// happen makes an event happen.
func (o *order) happen(e event) {
	o.trace = append(o.trace, e)
	switch e.what {
	case "logged":
		if !o.commit(o.ops[o.next : o.next+1]) {
			o.fail("%v is not legal", o.ops[o.next])
		}
		o.next++
	case "visible":
		o.show(e.n)
	case "decoded":
		o.decode()
		for !o.split && o.open {
			o.decode()
		}
	case "tracker begins":
		o.noting, o.stage = true, 1
	case "running asked":
		o.asked, o.stage = o.invisible(), 2
		for n := o.next; o.early && n < len(o.ops); n++ {
			o.asked = append(o.asked, uint64(n+1))
		}
	case "running told":
		o.code.running(o.asked)
		o.stage = 3
	default:
		o.step(&o.readers[e.n], o.lacks)
	}
}

// step takes a reader one stage on.
func (o *order) step(r *reader, lacks uint64) {
	switch r.stage {
	case toOpen:
		r.window, r.low = o.code.t.Open(), len(o.log)
		r.stage = toStart
		if !o.starts {
			r.stage = toRead
		}
	case toStart:
		r.stage = toRead
	case toRead:
		r.saw, r.seen = o.world.seen, o.visible(lacks)
		o.code.fill(&r.rows, &r.saw, r.from, r.to)
		r.stage = toEnd
	case toEnd:
		r.chunk = Chunk{Rows: &r.rows, Seen: o.code.seen(r.seen, r.low), End: o.end()}
		r.stage = toArm
	case toArm:
		r.stage = toWrite
		if !o.code.arm(r.window, &r.chunk, "a") {
			o.again(r)
		}
	case toWrite:
		torn := r.window.Torn() > 0
		if !torn {
			o.write(&r.chunk, &r.saw, r.from, r.to)
		}
		o.code.t.Close(r.window)
		r.stage = written
		if torn {
			o.again(r)
		}
	}
}

// again has a chunk read again.
func (o *order) again(r *reader) {
	o.rereads++
	r.stage = useless
	if r.again > 0 {
		r.again--
		r.stage = toOpen
	}
}

// finish reads again what was of no use: now that nothing else happens it must be.
func (o *order) finish() {
	for i := range o.readers {
		r := &o.readers[i]
		if r.stage != useless {
			continue
		}
		for r.stage = toOpen; r.stage < written; {
			o.step(r, 0)
		}
		if r.stage == useless {
			o.fail("reader %d: of no use though everything is visible and decoded", i)
			r.stage = written
		}
	}
	if n := len(o.code.t.reading) + len(o.code.t.armed); n > 0 {
		o.fail("%d windows are left", n)
	}
	if o.code.t.held != 0 {
		o.fail("%d bytes of keys are left", o.code.t.held)
	}
	o.same()
}

// paths are the choices of one order; next goes to the next order.
type paths struct {
	at, of []int
	depth  int
}

func (p *paths) pick(n int) int {
	if n == 1 {
		return 0
	}
	if p.depth == len(p.at) {
		p.at, p.of = append(p.at, 0), append(p.of, n)
	}
	p.depth++
	return p.at[p.depth-1]
}

func (p *paths) next() bool {
	p.depth = 0
	for n := len(p.at); n > 0; n-- {
		if p.at[n-1]++; p.at[n-1] < p.of[n-1] {
			p.at, p.of = p.at[:n], p.of[:n]
			return true
		}
	}
	return false
}

// tally counts what the orders came to.
type tally struct{ orders, rereads, dropped, emitted int }

// every tries every order of a scenario, until one is bad: it returns why, and the order.
func (s *scenario) every(o *order, m mutant, n *tally) string {
	var p paths
	for more := true; more; more = p.next() {
		if bad := o.run(s, m, n, p.pick); bad != "" {
			return bad
		}
	}
	return ""
}

// some tries a number of orders of a scenario.
func (s *scenario) some(o *order, m mutant, n *tally, rnd *rand.Rand, orders int) string {
	for range orders {
		if bad := o.run(s, m, n, rnd.IntN); bad != "" {
			return bad
		}
	}
	return ""
}

// run tries the order that pick says.
func (o *order) run(s *scenario, m mutant, n *tally, pick func(n int) int) string {
	o.reset(s, m)
	for o.bad == "" {
		events := o.enabled()
		if len(events) == 0 {
			break
		}
		o.happen(events[pick(len(events))])
	}
	o.finish()
	n.orders++
	n.rereads += o.rereads
	n.dropped += o.dropped
	n.emitted += o.emitted
	if o.bad == "" {
		return ""
	}
	var trace strings.Builder
	for _, e := range o.trace {
		fmt.Fprintf(&trace, "\n\t%v", e)
	}
	return fmt.Sprintf("%v: %s%s", s, o.bad, &trace)
}

// firsts are the commits of one change, on keys of which 0 and 1 have a row and 2 has none.
var firsts = []change{{op: opInsert, key: 2}, {op: opUpdate}, {op: opUpdatePart}, {op: opDelete}, {op: opMove, to: 2}, {op: opTruncate}}

// seconds are the commits that can follow one.
func seconds(first change) []change {
	rows := table{{1, 1}, {1, 1}}
	first.version = 2
	first.apply(&rows)
	var all []change
	for _, o := range []op{opInsert, opUpdate, opUpdatePart, opDelete, opMove, opTruncate} {
		for key := range 3 {
			for to := range 3 {
				c := change{op: o, key: key, to: to}
				if c.legal(&rows) && (o == opMove || to == 0) && (o != opTruncate || key == 0) {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// pairs are the scenarios of two commits.
func pairs(base scenario) []*scenario {
	var all []*scenario
	for _, first := range firsts {
		for _, second := range seconds(first) {
			s := base
			s.ops = []change{first, second}
			all = append(all, &s)
		}
	}
	return all
}

// related leaves out the scenarios whose commits have no key in common.
func related(all []*scenario) []*scenario {
	return slices.DeleteFunc(all, func(s *scenario) bool {
		one, two := s.ops[0], s.ops[1]
		return one.op != opTruncate && two.op != opTruncate && !slices.ContainsFunc(one.keys(), func(k int) bool {
			return slices.Contains(two.keys(), k)
		})
	})
}

// singles are the scenarios of one commit.
func singles(base scenario) []*scenario {
	var all []*scenario
	for _, first := range append(firsts, change{op: opUpdate, key: 1}, change{op: opMove, key: 1, to: 2}) {
		s := base
		s.ops = []change{first}
		all = append(all, &s)
	}
	return all
}
