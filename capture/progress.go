package capture

import (
	"fmt"
	"slices"

	"github.com/tailrace/tailrace/capture/backfill"
	"github.com/tailrace/tailrace/stream"
)

// partition is one partition's numbering in this run. It belongs to the goroutine that
// reads the log, but for offset, which belongs to the one that sends.
type partition struct {
	id    PartitionID
	n     uint64       // number of its last record, written or about to be
	place stream.Place // and that record's place
	read  bool         // it is of a backfill
	tail  tail         // its last record as the start found it
	ahead bool         // the replay has not met the tail yet

	cutN     uint64       // n as of the last cut,
	cutPlace stream.Place // and the place
	cutRead  bool
	dirty    bool // to be in the next cut: it changed, or its state record is stale

	out    *outgoing // its batch that is being filled; nil: none
	txSeq  uint64    // the last source transaction that touched it,
	txRow  uint64    // and the last row there
	offset int64     // of its last acknowledged record; -1: none
	past   int64     // offset after the records of others that were borne with; 0: there are none
}

// ranged is one range of a backfill: how far it is written, now and as of the last cut.
type ranged struct {
	key   string // of its state record
	now   backfill.Progress
	cut   backfill.Progress
	dirty bool // to be in the next cut
}

// progress is the arithmetic of one run: which records are written, with which number, and
// what the state says of it. It does no I/O. Invariants:
//
//   - a partition's n counts up by one with each record that is written, from the tail's;
//   - a record at or before the tail's place is not written again, and the one at the
//     tail's place is the tail itself; where the broker has let go of a tail before it was
//     seen, as many records are left out as it held;
//   - base, the position that cuts carry, is never after a commit of which a record has
//     not been admitted, and does not move until every tail has been met.
type progress struct {
	epoch    uint64
	identity string
	timeline uint32
	snapshot string // snapshotNone, …
	g        uint64 // of the last cut
	slot     int    // position record that the last cut wrote, or the run started from

	seen      Position // after the last whole commit, or as far as the log is known to be idle
	seenOrder order    // the last commit with records at or before seen
	base      Position // what the next cut says: seen, or the start's while tails are ahead
	baseOrder order

	parts   map[PartitionID]*partition
	dirty   []*partition
	ranges  []*ranged // dirty ones
	ahead   []*partition
	horizon stream.Place // the last place that any earlier run has written of
	highest Position     // the log's end when the run began; no tail lies beyond it
	reading bool         // what is admitted are rows that were read, no changes
}

// opEnd is the op under which END records are admitted.
const opEnd = 'e'

// cut is what the state topic is to be told: made when a group is complete, written when
// the group's records are acknowledged.
type cut struct {
	slot     int
	position positionState
	parts    []cutPart
	ranges   []cutRange
}

type cutRange struct {
	of          *ranged
	now, before backfill.Progress
}

type cutPart struct {
	part        *partition
	n           uint64
	place       stream.Place
	before      uint64
	beforePlace stream.Place
	read        bool // the record at place is of a backfill,
	beforeRead  bool // and that at beforePlace
}

// add takes up a partition whose last record is t.
func (p *progress) add(id PartitionID, t tail) *partition {
	part := &partition{id: id, n: t.n, place: t.place, tail: t, read: t.read(), cutN: t.n, cutPlace: t.place, cutRead: t.read(), offset: t.offset}
	done := stream.Place{Epoch: p.epoch, File: p.baseOrder.File, Pos: p.baseOrder.Pos, Row: ^uint64(0)}
	if t.n > 0 && t.place.Compare(done) > 0 || t.unseen > 0 {
		part.ahead = true
		p.ahead = append(p.ahead, part)
	}
	p.parts[id] = part
	return part
}

// touch puts a partition into the next cut.
func (p *progress) touch(part *partition) {
	if !part.dirty {
		part.dirty = true
		p.dirty = append(p.dirty, part)
	}
}

// admit says whether the record at place is to be written to part, and takes its number if
// so. key is framed; op is 0 for a tombstone. An error means that the topic does not come
// from this log.
func (p *progress) admit(part *partition, place stream.Place, key []byte, op byte) (n uint64, write bool, err error) {
	if place.Compare(part.tail.place) <= 0 {
		if !part.ahead || part.tail.unseen > 0 || place != part.tail.place {
			return 0, false, nil
		}
		if !part.tail.matches(key, op) {
			return 0, false, contradiction(part, "another record stands there in the log")
		}
		p.met(part)
		return 0, false, nil
	}
	if part.tail.unseen > 0 {
		part.tail.place = place
		if part.tail.unseen--; part.tail.unseen == 0 {
			part.place, part.cutPlace = place, place
			part.read, part.cutRead = false, false
			p.met(part)
			p.touch(part)
		}
		return 0, false, nil
	}
	if part.ahead && part.tail.read() {
		p.met(part)
	}
	if part.ahead {
		return 0, false, contradiction(part, fmt.Sprintf("the log goes on with %s", placeText(place)))
	}
	if place.Compare(part.place) <= 0 {
		return 0, false, epochf("this is a fault of the source, or of tailrace; "+nothingSince,
			"log goes back in %s: %s after %s", part.id, placeText(place), placeText(part.place))
	}
	part.n++
	part.place, part.read = place, p.reading
	p.touch(part)
	return part.n, true, nil
}

// met ends the replay of one partition.
func (p *progress) met(part *partition) {
	part.ahead = false
	for i, a := range p.ahead {
		if a == part {
			p.ahead = append(p.ahead[:i], p.ahead[i+1:]...)
			return
		}
	}
}

// commit ends the source transaction at o, after which the log stands at end.
func (p *progress) commit(o order, end Position, records bool) error {
	if records {
		p.seenOrder = o
	}
	for _, part := range slices.Clone(p.ahead) {
		t := part.tail.place
		passed := t.Epoch < p.epoch || t.File < o.File || t.File == o.File && t.Pos <= o.Pos
		switch {
		case part.tail.unseen > 0:
			if err := p.stillUnseen(part, end); err != nil {
				return err
			}
		case passed && part.tail.read():
			p.met(part)
		case passed:
			return contradiction(part, fmt.Sprintf("the log has passed it with the commit at %s", Position{File: o.File, Offset: o.Pos}))
		}
	}
	p.moved(end)
	return nil
}

// idle notes that the log holds nothing for us up to pos.
func (p *progress) idle(pos Position) error {
	for _, part := range slices.Clone(p.ahead) {
		t := part.tail.place
		passed := t.Epoch < p.epoch || placePosition(t).Compare(pos) < 0
		switch {
		case part.tail.unseen > 0:
			if err := p.stillUnseen(part, pos); err != nil {
				return err
			}
		case passed && part.tail.read():
			p.met(part)
		case passed:
			return contradiction(part, fmt.Sprintf("the log holds nothing up to %s", pos))
		}
	}
	p.moved(pos)
	return nil
}

// stillUnseen: records that no state tells of were in the log when the run began.
func (p *progress) stillUnseen(part *partition, pos Position) error {
	if p.highest == (Position{}) || pos.Compare(p.highest) < 0 {
		return nil
	}
	return contradiction(part, fmt.Sprintf("the log up to %s holds %d records less than the partition held", pos, part.tail.unseen))
}

// passed returns the place behind which rows that were read go: that of the last commit,
// and there the last row of which any run has written. tx is the place of the last record
// of this run.
func (p *progress) passed(tx stream.Place) stream.Place {
	last := stream.Place{Epoch: p.epoch, File: p.seenOrder.File, Pos: p.seenOrder.Pos}
	if last.File == 0 && last.Pos == 0 {
		// Nothing was written in this epoch: the last commit ended at or before the
		// position, and the next begins there.
		last.File, last.Pos = p.seen.File, max(p.seen.Offset, 1)-1
	}
	for _, at := range []stream.Place{tx, p.horizon} {
		if last.Compare(at) < 0 {
			last = at
		}
	}
	return last
}

func (p *progress) moved(pos Position) {
	if pos.Compare(p.seen) > 0 {
		p.seen = pos
	}
	if len(p.ahead) == 0 {
		p.base, p.baseOrder = p.seen, p.seenOrder
	}
}

// cut closes what was admitted so far: the next state record of the position and of each
// partition touched since the last cut.
func (p *progress) cut() *cut {
	p.g++
	p.slot = 1 - p.slot
	c := &cut{slot: p.slot, position: positionState{
		G: p.g, Epoch: p.epoch, Identity: p.identity, Timeline: p.timeline, Position: p.base, Order: p.baseOrder, Snapshot: p.snapshot,
	}}
	c.parts = make([]cutPart, len(p.dirty))
	for i, part := range p.dirty {
		c.parts[i] = cutPart{part: part, n: part.n, place: part.place, before: part.cutN, beforePlace: part.cutPlace,
			read: part.read, beforeRead: part.cutRead}
		part.cutN, part.cutPlace, part.cutRead = part.n, part.place, part.read
		part.dirty = false
	}
	p.dirty = p.dirty[:0]
	for _, r := range p.ranges {
		c.ranges = append(c.ranges, cutRange{of: r, now: r.now, before: r.cut})
		r.cut, r.dirty = r.now, false
	}
	p.ranges = p.ranges[:0]
	return c
}

// advance notes that a chunk of a range was admitted. The next cut says so: with what was
// true before it, since a start may find that this cut was torn.
func (p *progress) advance(r *ranged, c *backfill.Chunk) {
	r.now.Advance(c)
	p.touchRange(r)
}

func (p *progress) touchRange(r *ranged) {
	if !r.dirty {
		r.dirty = true
		p.ranges = append(p.ranges, r)
	}
}

// redo has the partitions of a cut in the next one again.
func (p *progress) redo(c *cut) {
	for _, cp := range c.parts {
		cp.part.cutN, cp.part.cutPlace, cp.part.cutRead = cp.before, cp.beforePlace, cp.beforeRead
		p.touch(cp.part)
	}
	for _, cr := range c.ranges {
		cr.of.cut = cr.before
		p.touchRange(cr.of)
	}
}

// undo takes back the last cut, which was not written.
func (p *progress) undo(c *cut) {
	p.g--
	p.slot = 1 - p.slot
	p.redo(c)
}

// dropAhead forgets that there are tails to be met.
func (p *progress) dropAhead() {
	for _, part := range p.ahead {
		part.ahead = false
	}
	p.ahead = nil
	p.moved(p.seen)
}
