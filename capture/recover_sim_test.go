package capture

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/tailrace/tailrace/stream"
)

// The simulation drives choose, newProgress, admit, commit, idle, cut and undo through
// random crashes against a model of the broker, and judges what the topics hold in the end.
//
// Modes: txn: a crash inside a commit may tear it: each partition, and the state as a
// whole, commits or vanishes alone. lie: the same, and the broker may lose parts of the
// last commit that it had acknowledged. idem: records first, then the state; a crash
// leaves a prefix of each partition.
//
// It knows source transactions that are split over several Kafka transactions, END
// records, deletes with tombstones, topics that appear on the way, retention, groups that
// are taken back before they are sent, idle logs, backfills whose rows stand between the
// transactions, with progress in the state, and a second log under a new epoch whose
// positions begin low again. Between two runs of the capture a person may decide (see
// decide): a new epoch of the same log, or that a part of the log is left out.

type simMode int

const (
	simTxn simMode = iota
	simLie
	simIdem
)

func (m simMode) String() string { return [...]string{"txn", "lie", "idem"}[m] }

// simEnd is how a run of the simulation ended.
type simEnd string

const (
	simOK      simEnd = "ok"
	simStop    simEnd = "stop"    // the capture stopped by itself: allowed where the broker lied
	simLogGone simEnd = "loggone" // it wants to start before what it had confirmed
	simBad     simEnd = "bad"     // lost, repeated, reordered, or n does not count
)

type simRow struct {
	id  PartitionID
	key byte
	op  byte
}

type simTx struct {
	order order
	end   Position
	rows  []simRow
}

type simRecord struct {
	place stream.Place
	n     uint64
	key   byte
	op    byte
	read  bool // of a backfill
}

// simPart is one partition on the broker: all records ever, of which those before start
// are gone by retention.
type simPart struct {
	recs  []simRecord
	start int
	log   int // where those of the second log begin
}

// simRange is a rangeState whose progress is a number of chunks.
type simRange = rangeState

type sim struct {
	rnd       *rand.Rand
	mode      simMode
	mutant    string
	log       []simTx
	second    bool // log
	starts    []simStart
	skips     []simSkip
	lossy     bool // the broker has lost records, and a person has decided to go on
	parts     map[PartitionID]*simPart
	state     *state
	confirmed Position
	crashes   int
	chunks    [][]simRow // of the backfill, in the order in which they are written
	written   simRange   // how many, as the state says
	wrote     *ranged    // and this run: rows are chunks here

	prog   *progress
	tx     stream.Place
	routed map[string]bool
	last   Position // last durable
	// the open Kafka transaction
	pending map[PartitionID][]simRecord
	// what the last commit did, for a broker that lies
	lastNew    map[PartitionID]int
	before     *state
	wasWritten simRange
}

func sortedIDs[V any](m map[PartitionID]V) []PartitionID {
	return slices.SortedFunc(maps.Keys(m), PartitionID.compare)
}

var errCrash = fmt.Errorf("crash")

func newSim(seed uint64, mode simMode, mutant string) *sim {
	s := &sim{rnd: rand.New(rand.NewPCG(seed, uint64(mode))), mode: mode, mutant: mutant,
		parts: make(map[PartitionID]*simPart), state: emptyState()}
	s.log, s.chunks = s.makeLog(), s.makeChunks()
	s.state.positions[0] = &positionState{G: 1, Epoch: 1, Snapshot: snapshotNone}
	s.starts = []simStart{{epoch: 1}}
	return s
}

func (s *state) clone() *state {
	c := emptyState()
	c.positions = s.positions
	for k, v := range s.partitions {
		c.partitions[k] = v
	}
	for k, v := range s.routing.Topics {
		c.routing.Topics[k] = v
	}
	return c
}

func (s *sim) makeLog() []simTx {
	topics := 1 + s.rnd.IntN(2)
	partitions := 1 + s.rnd.IntN(3)
	var log []simTx
	pos := uint64(10)
	for range 4 + s.rnd.IntN(30) {
		tx := simTx{order: order{Pos: pos + 5}, end: Position{Offset: pos + 9}}
		pos += 10 + uint64(s.rnd.IntN(3))*10
		for range s.rnd.IntN(6) {
			row := simRow{id: PartitionID{fmt.Sprint("t", s.rnd.IntN(topics)), int32(s.rnd.IntN(partitions))}, key: byte(s.rnd.IntN(4)), op: 'u'}
			if s.rnd.IntN(4) == 0 {
				row.op = 'd'
			}
			tx.rows = append(tx.rows, row)
		}
		log = append(log, tx)
	}
	return log
}

// run plays the log to its end, through crashes, and then a second log.
func (s *sim) run() simEnd {
	for {
		if end := s.play(); end != simOK {
			return end
		}
		if end := s.judge(); end != simOK {
			return end
		}
		if s.second {
			return simOK
		}
		s.newLog()
	}
}

// newLog switches to another log: a new epoch, written under both keys.
func (s *sim) newLog() {
	s.second = true
	g := s.state.newest().G
	at := positionState{Epoch: s.state.newest().Epoch + 1, Snapshot: snapshotNone}
	if s.mutant == "noepoch" {
		at.Epoch--
	}
	s.starts, s.skips, s.lossy = []simStart{{epoch: at.Epoch}}, nil, false
	for slot := range 2 {
		at.G = g + 1 + uint64(slot)
		p := at
		s.state.positions[slot] = &p
	}
	s.confirmed, s.lastNew = Position{}, nil
	for _, id := range sortedIDs(s.parts) {
		p := s.parts[id]
		p.log = len(p.recs)
		p.start = len(p.recs) - s.rnd.IntN(2)*min(1, len(p.recs)) // little is left of the old log
	}
	s.log, s.chunks = s.makeLog(), s.makeChunks()
	s.crashes, s.written = 0, simRange{}
}

func (s *sim) makeChunks() [][]simRow {
	most := 6
	if s.mode == simLie { // each commit is one more lie, and most of these must come to the end
		most = 3
	}
	chunks := make([][]simRow, s.rnd.IntN(most))
	for i := range chunks {
		for range s.rnd.IntN(5) {
			chunks[i] = append(chunks[i], simRow{id: PartitionID{"t0", int32(s.rnd.IntN(2))}, key: byte(10*i + s.rnd.IntN(10)), op: 'r'})
		}
	}
	return chunks
}

// backfill writes chunks whose turn it is, between two transactions, each with an END and
// the progress in the state.
func (s *sim) backfill(all bool) error {
	for len(s.prog.ahead) == 0 && int(s.wrote.now.Read) < len(s.chunks) && (all || s.rnd.IntN(3) == 0) {
		if s.mutant == "readfree" {
			s.tx = stream.Place{Epoch: s.prog.epoch, File: s.prog.seenOrder.File, Pos: s.prog.seenOrder.Pos}
		} else {
			s.tx = s.prog.passed(s.tx)
		}
		s.prog.reading = true
		at := order{File: s.tx.File, Pos: s.tx.Pos}
		for _, row := range append(slices.Clone(s.chunks[s.wrote.now.Read]), simRow{id: PartitionID{"end", 0}, op: opEnd}) {
			if err := s.route(row.id.Topic); err != nil {
				return err
			}
			if err := s.record(row.id, row.key, row.op); err != nil {
				return err
			}
			if s.rnd.IntN(12) == 0 {
				if err := s.commit(s.prog.cut(), false); err != nil {
					return err
				}
			}
		}
		s.wrote.now.Read++
		if s.prog.touchRange(s.wrote); s.mutant == "progressfirst" {
			s.written.Progress, s.written.Before = s.wrote.now, s.wrote.now
		}
		if err := s.prog.commit(at, s.prog.seen, true); err != nil {
			return err
		}
		s.prog.reading = false
		if s.rnd.IntN(2) == 0 {
			if err := s.commit(s.prog.cut(), false); err != nil {
				return err
			}
		}
	}
	s.prog.reading = false
	return nil
}

// play runs the capture again and again until it comes to the end of the log.
func (s *sim) play() simEnd {
	for {
		end, err := s.attempt()
		switch {
		case err == errCrash:
			s.crashes++
			s.retain()
			if s.rnd.IntN(6) == 0 {
				s.decide()
			}
		case end == simStop && s.mode == simLie && len(s.starts) < 4 && s.rnd.IntN(2) == 0:
			s.newEpoch()
		default:
			return end
		}
	}
}

// retain lets retention take records: on Kafka none that the state does not tell of yet.
func (s *sim) retain() {
	if s.rnd.IntN(6) > 0 {
		return
	}
	for _, id := range sortedIDs(s.parts) {
		p := s.parts[id]
		end := len(p.recs)
		if s.mode != simIdem || len(s.chunks) > 0 { // what else is gone then is a stop
			end = min(end, int(s.state.partitions[id].Before))
		}
		if s.rnd.IntN(2) == 0 && p.start < end {
			p.start += s.rnd.IntN(end - p.start + 1)
		}
	}
}

func (s *sim) tails() map[PartitionID]tail {
	tails := make(map[PartitionID]tail)
	for _, id := range s.state.known() {
		rec := s.state.partitions[id]
		p := s.part(id)
		switch {
		case len(p.recs) > p.start:
			r := p.recs[len(p.recs)-1]
			tails[id] = tail{n: r.n, place: r.place, known: true, key: []byte{r.key}, op: r.op, flags: readFlag(r.read && s.mutant != "noreadflag")}
		case s.mutant != "forgetold":
			tails[id] = s.expired(rec, uint64(len(p.recs)))
		}
		if s.mutant == "trust" {
			tails[id] = tail{n: rec.N, place: rec.Place}
		}
	}
	return tails
}

// expired is what readTail makes of a partition whose records are all gone.
func (s *sim) expired(rec partitionState, end uint64) tail {
	if end < rec.N {
		return tail{n: rec.Before, place: rec.BeforePlace, flags: readFlag(rec.BeforeRead && s.mutant != "noreadstate")}
	}
	t := tail{n: rec.N, place: rec.Place, flags: readFlag(rec.Read && s.mutant != "noreadstate")}
	if s.mode == simIdem && s.mutant != "nounseen" {
		t.unseen = end - rec.N
		t.n = end
	}
	return t
}

func (s *sim) part(id PartitionID) *simPart {
	p := s.parts[id]
	if p == nil {
		p = new(simPart)
		s.parts[id] = p
	}
	return p
}

// attempt is one run of the capture: start, then the log until its end or a crash.
func (s *sim) attempt() (simEnd, error) {
	tails := s.tails()
	st, err := s.choose(tails)
	if err != nil {
		return simStop, nil
	}
	if st.from.Position.Compare(s.confirmed) < 0 {
		return simLogGone, nil
	}
	s.prog = newProgress(s.state, st, tails)
	s.prog.highest = s.log[len(s.log)-1].end
	s.distort(st)
	s.pending, s.last = make(map[PartitionID][]simRecord), st.from.Position
	at := s.written.at(st.from.G)
	if s.mutant == "tornprogress" {
		at = s.written.Progress
	}
	s.wrote, s.tx = &ranged{now: at, cut: at}, stream.Place{}
	if s.written.G > st.from.G && s.mutant != "stalerange" {
		s.prog.touchRange(s.wrote)
	}
	s.routed = make(map[string]bool)
	for t := range s.state.routing.Topics {
		s.routed[t] = true
	}
	if st.from.G < st.maxG && s.mutant != "keeptorn" {
		if err := s.commit(s.prog.cut(), false); err != nil {
			return s.ended(err)
		}
	}
	for _, tx := range s.log {
		if tx.end.Compare(st.from.Position) <= 0 {
			continue
		}
		if err := s.transaction(tx); err != nil {
			return s.ended(err)
		}
		if err := s.backfill(false); err != nil {
			return s.ended(err)
		}
	}
	for range 2 { // the first may meet the last tails
		if err := s.idle(s.log[len(s.log)-1].end); err != nil {
			return s.ended(err)
		}
		if err := s.backfill(true); err != nil {
			return s.ended(err)
		}
	}
	if err := s.idle(s.log[len(s.log)-1].end); err != nil {
		return s.ended(err)
	}
	return simOK, nil
}

func (s *sim) ended(err error) (simEnd, error) {
	if err == errCrash {
		return "", err
	}
	return simStop, nil
}

// choose is the product's, but for a mutant that looks only at what the last cut touched.
func (s *sim) choose(tails map[PartitionID]tail) (start, error) {
	if s.mutant != "delta" {
		return choose(s.state, tails)
	}
	for _, slot := range s.state.bySlot() {
		cand, good := s.state.positions[slot], true
		for id, p := range s.state.partitions {
			if p.G == cand.G && tails[id].n < p.N {
				good = false
			}
		}
		if good {
			return start{slot: slot, maxG: s.state.newest().G, from: *cand}, nil
		}
	}
	return start{}, lostErr(nil)
}

// distort makes the mutants that a start may have.
func (s *sim) distort(st start) {
	switch s.mutant {
	case "trust":
		s.prog.dropAhead()
	case "nodrop":
		for _, part := range s.prog.parts {
			part.tail.place, part.place = stream.Place{}, stream.Place{}
		}
		s.prog.dropAhead()
	case "nostale":
		for id, rec := range s.state.partitions {
			if rec.G > st.from.G {
				s.prog.parts[id].dirty = false
			}
		}
		var dirty []*partition
		for _, part := range s.prog.dirty {
			if part.dirty {
				dirty = append(dirty, part)
			}
		}
		s.prog.dirty = dirty
	}
}

// transaction emits one source transaction, in one Kafka transaction or in several.
func (s *sim) transaction(tx simTx) error {
	s.tx = stream.Place{Epoch: s.prog.epoch, File: tx.order.File, Pos: tx.order.Pos}
	records := 0
	for _, row := range tx.rows {
		if err := s.route(row.id.Topic); err != nil {
			return err
		}
		if err := s.record(row.id, row.key, row.op); err != nil {
			return err
		}
		if row.op == 'd' {
			if s.mutant == "sharedrow" {
				s.tx.Row--
			}
			if err := s.record(row.id, row.key, 0); err != nil {
				return err
			}
		}
		records++
		if s.rnd.IntN(12) == 0 {
			c := s.prog.cut()
			if s.mutant == "splitadvance" {
				c.position.Position, c.position.Order = tx.end, tx.order
			}
			if err := s.commit(c, false); err != nil {
				return err
			}
		}
	}
	if records > 0 {
		if err := s.route("end"); err != nil {
			return err
		}
		if err := s.record(PartitionID{"end", 0}, 0, opEnd); err != nil {
			return err
		}
	}
	if err := s.prog.commit(tx.order, tx.end, records > 0); err != nil {
		return err
	}
	switch s.rnd.IntN(6) {
	case 0, 1: // the group goes
		return s.commit(s.prog.cut(), false)
	case 2: // it is put into the channel and taken back
		c := s.prog.cut()
		if s.mutant != "undoforget" {
			s.prog.undo(c)
		}
	case 3:
		return s.idle(tx.end)
	}
	return nil // the next transaction joins it
}

// idle moves the position forward under both keys, then confirms exactly.
func (s *sim) idle(pos Position) error {
	if err := s.prog.idle(pos); err != nil {
		return err
	}
	if len(s.prog.ahead) > 0 {
		return nil
	}
	if s.mutant != "idleonce" {
		if err := s.commit(s.prog.cut(), false); err != nil {
			return err
		}
	}
	return s.commit(s.prog.cut(), true)
}

// route makes a topic known, durable before its first record.
func (s *sim) route(topic string) error {
	if s.routed[topic] {
		return nil
	}
	partitions := int32(3)
	if topic == "end" {
		partitions = 1
	}
	for i := range partitions {
		id := PartitionID{topic, i}
		if s.prog.parts[id] == nil {
			s.prog.add(id, tail{offset: -1})
		}
	}
	s.routed[topic] = true
	if s.mutant == "nometa" {
		return nil
	}
	if len(s.pending) > 0 { // a commit of its own: what is open ends first, or goes after
		if err := s.commit(s.prog.cut(), false); err != nil {
			return err
		}
	}
	if s.crash(8) && s.rnd.IntN(2) == 0 {
		return errCrash
	}
	s.state.routing.Topics[topic] = topicState{Partitions: partitions}
	if s.crash(8) {
		return errCrash
	}
	return nil
}

func (s *sim) record(id PartitionID, key, op byte) error {
	s.tx.Row++
	part := s.prog.parts[id]
	n, write, err := s.prog.admit(part, s.tx, []byte{0, 0, 0, 0, 1, key}, op)
	if err != nil || !write {
		return err
	}
	s.pending[id] = append(s.pending[id], simRecord{place: s.tx, n: n, key: key, op: op, read: s.prog.reading})
	return nil
}

func (s *sim) crash(oneIn int) bool { return s.crashes < 12 && s.rnd.IntN(oneIn) == 0 }

// commit ends the open Kafka transaction with a cut, or crashes in it.
func (s *sim) commit(c *cut, exact bool) error {
	if s.mutant == "sameslot" {
		c.slot = 1 - c.slot
	}
	if s.crash(6) {
		s.tear(c)
		return errCrash
	}
	if len(s.pending) > 0 {
		s.before, s.lastNew, s.wasWritten = s.state.clone(), make(map[PartitionID]int), s.written
	} else {
		s.before = nil // a position alone: what the commit before it wrote may still be lost
	}
	for id, recs := range s.pending {
		s.part(id).recs = append(s.part(id).recs, recs...)
		s.lastNew[id] = len(recs)
	}
	s.write(c)
	s.pending = make(map[PartitionID][]simRecord)
	if exact || s.mutant == "confirmnow" {
		s.confirm(c.position.Position)
	} else {
		s.confirm(s.last)
	}
	s.last = c.position.Position
	return nil
}

func (s *sim) confirm(p Position) {
	if p.Compare(s.confirmed) > 0 {
		s.confirmed = p
	}
}

func (s *sim) write(c *cut) {
	p := c.position
	s.state.positions[c.slot] = &p
	for _, cp := range c.parts {
		s.state.partitions[cp.part.id] = partitionState{G: p.G, N: cp.n, Place: cp.place, Before: cp.before, BeforePlace: cp.beforePlace,
			Read: cp.read, BeforeRead: cp.beforeRead}
	}
	for _, cr := range c.ranges {
		s.written = simRange{G: p.G, Progress: cr.now, Before: cr.before}
	}
}

// tear crashes inside a commit, by the mode.
func (s *sim) tear(c *cut) {
	switch {
	case s.mode == simLie && s.lastNew != nil && s.rnd.IntN(3) == 0:
		for _, id := range sortedIDs(s.lastNew) {
			n, p := s.lastNew[id], s.part(id)
			if s.rnd.IntN(2) == 0 && n <= len(p.recs) {
				p.recs = p.recs[:len(p.recs)-n]
				p.start = min(p.start, len(p.recs))
			}
		}
		if s.before != nil && s.rnd.IntN(2) == 0 {
			s.state, s.written = s.before, s.wasWritten
		}
	case s.mode == simIdem:
		full := s.rnd.IntN(3) == 0
		for _, id := range sortedIDs(s.pending) {
			recs := s.pending[id]
			k := len(recs)
			if !full {
				k = s.rnd.IntN(k + 1)
			}
			s.part(id).recs = append(s.part(id).recs, recs[:k]...)
		}
		if full && s.rnd.IntN(2) == 0 {
			s.write(c)
		}
	default:
		for _, id := range sortedIDs(s.pending) {
			recs := s.pending[id]
			if s.rnd.IntN(2) == 0 {
				s.part(id).recs = append(s.part(id).recs, recs...)
			}
		}
		if s.rnd.IntN(2) == 0 {
			s.write(c)
		}
	}
	s.lastNew = nil
}

// judge compares the topics with the log: under each epoch every record from its beginning on
// once and in order, up to where the next begins at least, but for what was to be left out;
// n without a gap.
func (s *sim) judge() simEnd {
	want := make(map[PartitionID][]simWant)
	for i, tx := range s.log {
		place := stream.Place{File: tx.order.File, Pos: tx.order.Pos}
		add := func(id PartitionID, key, op byte) {
			place.Row++
			want[id] = append(want[id], simWant{i, simRecord{place: place, key: key, op: op}})
		}
		for _, row := range tx.rows {
			add(row.id, row.key, row.op)
			if row.op == 'd' {
				add(row.id, row.key, 0)
			}
		}
		if len(tx.rows) > 0 {
			add(PartitionID{"end", 0}, 0, opEnd)
		}
	}
	for id := range want {
		s.part(id)
	}
	for id, p := range s.parts {
		for i, r := range p.recs {
			if r.n != uint64(i+1) {
				return simBad
			}
		}
		recs := slices.DeleteFunc(slices.Clone(p.recs[min(p.log, len(p.recs)):]), func(r simRecord) bool { return r.read })
		for i := range s.starts {
			var ok bool
			if recs, ok = s.judgeEpoch(i, recs, want[id]); !ok {
				return simBad
			}
		}
		if len(recs) > 0 {
			return simBad
		}
	}
	if !s.judgeReads() {
		return simBad
	}
	return simOK
}

// simWant is a record that is to come from a transaction of the log.
type simWant struct {
	tx int
	simRecord
}

// judgeEpoch takes the records of the i-th start's epoch from a partition's, and says whether
// they are the ones that are wanted.
func (s *sim) judgeEpoch(i int, recs []simRecord, want []simWant) (rest []simRecord, ok bool) {
	at, until := s.starts[i], len(s.log) // the transactions before must be there
	if i+1 < len(s.starts) {
		until = s.starts[i+1].from
		if s.lossy {
			until = 0
		}
	}
	left := -1 // the skip of which something was left out
	for _, w := range want {
		if w.tx < at.from {
			continue
		}
		w.place.Epoch = at.epoch
		skip := slices.IndexFunc(s.skips, func(k simSkip) bool { return i == k.start && k.from <= w.tx && w.tx < k.to })
		if len(recs) > 0 && recs[0].op == w.op && recs[0].key == w.key && (recs[0].place == w.place || s.mutant == "sharedrow" && recs[0].place.Epoch == at.epoch) && (skip < 0 || skip != left) {
			recs = recs[1:]
			continue
		}
		if skip >= 0 {
			left = skip
			continue
		}
		return recs, w.tx >= until
	}
	return recs, true
}

// judgeReads says whether every row of every chunk was written, and whether places only
// rise, those of rows that were read too.
func (s *sim) judgeReads() bool {
	have := make(map[PartitionID]map[byte]bool)
	for id, p := range s.parts {
		have[id] = make(map[byte]bool)
		for i, r := range p.recs {
			if i > 0 && p.recs[i-1].place.Compare(r.place) >= 0 && s.mutant != "noepoch" && s.mutant != "sharedrow" {
				return false
			}
			if r.op == 'r' && i >= p.log {
				have[id][r.key] = true
			}
		}
	}
	for _, rows := range s.chunks {
		for _, r := range rows {
			if !have[r.id][r.key] && !s.lossy {
				return false
			}
		}
	}
	return true
}

// simulate runs seeds in one mode and counts the ends; bad is the first seed that must not
// have ended as it did.
func simulate(seeds uint64, mode simMode, mutant string) (ends map[simEnd]int, bad uint64, found bool) {
	ends = make(map[simEnd]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	workers := uint64(runtime.GOMAXPROCS(0))
	for w := range workers {
		wg.Go(func() {
			for seed := w; seed < seeds; seed += workers {
				end := newSim(seed, mode, mutant).run()
				mu.Lock()
				ends[end]++
				wrong := end != simOK && !(mode == simLie && end == simStop)
				if wrong && !found {
					bad, found = seed, true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ends, bad, found
}

func TestRecoverySimulation(t *testing.T) {
	for _, mode := range []simMode{simTxn, simLie, simIdem} {
		t.Run(mode.String(), func(t *testing.T) {
			ends, bad, found := simulate(simSeeds, mode, "")
			t.Logf("%s: %v", mode, ends)
			if found {
				t.Fatalf("seed %d ends %q", bad, newSim(bad, mode, "").run())
			}
			if ends[simOK] < simSeeds/2 {
				t.Fatalf("only %d of %d runs came to the end: %v", ends[simOK], simSeeds, ends)
			}
		})
	}
}

// TestRecoveryMutants: every fault must be seen in some mode.
func TestRecoveryMutants(t *testing.T) {
	for _, mutant := range []string{"trust", "delta", "nodrop", "sharedrow", "sameslot", "confirmnow", "nostale",
		"splitadvance", "noepoch", "undoforget", "nometa", "forgetold", "idleonce", "nounseen",
		"readfree", "noreadflag", "noreadstate", "progressfirst", "tornprogress", "stalerange", "keeptorn",
		"decidenewest", "decidesame", "decidetail", "decidestate", "decideprogress", "skipstate", "skipprogress"} {
		t.Run(mutant, func(t *testing.T) {
			red := false
			for seeds := uint64(simSeeds / 5); !red && seeds <= 4*10_000; seeds *= 4 { // some take rare crashes
				for _, mode := range []simMode{simTxn, simLie, simIdem} {
					ends, _, found := simulate(seeds, mode, mutant)
					t.Logf("%s: %v", mode, ends)
					red = red || found
				}
			}
			if !red {
				t.Fatal("no mode sees it")
			}
		})
	}
}
