package capture

import (
	"bytes"
	"fmt"

	"github.com/tailrace/tailrace/stream"
)

// tail is the end of one partition as the start found it: its last committed record.
type tail struct {
	n     uint64 // 0: no record ever
	place stream.Place
	// What the record holds, to compare with the replay; known is false when the record
	// itself is gone (retention, compaction) and only the state remembers its place.
	known  bool
	key    []byte // Avro body without the frame; nil: none
	value  []byte // framed; nil: a tombstone
	op     byte   // read from value when it is needed; 0: a tombstone
	flags  byte   // of its mark
	offset int64  // of the record, or -1
	unseen uint64 // records that followed the one at place and are gone; n counts them
}

// read says that the record is of a backfill. The log does not have it: it stands behind
// the last commit that had been passed when it was written, so that the replay has met it
// once it has passed that commit.
func (t *tail) read() bool { return t.flags&stream.FlagBackfill != 0 }

// matches says whether a record of the replay at the tail's place is the tail itself.
func (t *tail) matches(key []byte, op byte) bool {
	return !t.known || t.op == op && bytes.Equal(t.key, body(key))
}

// body returns what follows the frame of a key.
func body(framed []byte) []byte {
	if len(framed) < frameSize {
		return nil
	}
	return framed[frameSize:]
}

// start is where a run begins, chosen from the state and what the partitions hold.
type start struct {
	slot  int // the position record it comes from; the first cut overwrites the other
	maxG  uint64
	from  positionState
	stale int // partitions that a commit touched which was rolled back
}

// choose takes the newest position that the partitions bear out: each holds at least what
// was written to it by then. A partition's record that is newer than the position tells
// what it held before. If neither position is borne out, records that were acknowledged
// are gone, and nothing can be proved any more.
func choose(s *state, tails map[PartitionID]tail) (start, error) {
	var short error
	for _, slot := range s.bySlot() {
		cand := s.positions[slot]
		if err := borneOut(s, cand, tails); err != nil {
			short = err
			continue
		}
		st := start{slot: slot, maxG: s.newest().G, from: *cand}
		for _, p := range s.partitions {
			if p.G > cand.G {
				st.stale++
			}
		}
		return st, nil
	}
	return start{}, lostErr(short)
}

// bySlot returns the slots of the position records that exist, newest first.
func (s *state) bySlot() []int {
	a, b := s.positions[0], s.positions[1]
	switch {
	case a == nil && b == nil:
		return nil
	case b == nil:
		return []int{0}
	case a == nil:
		return []int{1}
	case b.G > a.G:
		return []int{1, 0}
	}
	return []int{0, 1}
}

func borneOut(s *state, cand *positionState, tails map[PartitionID]tail) error {
	for _, id := range s.known() {
		t := tails[id]
		if t.place.Epoch > cand.Epoch {
			return fmt.Errorf("partition %s ends in epoch %d, the state in epoch %d", id, t.place.Epoch, cand.Epoch)
		}
		p := s.partitions[id]
		if want := p.at(cand.G); t.n < want {
			return fmt.Errorf("partition %s ends at n = %d, the state says that %d were written", id, t.n, want)
		}
	}
	return nil
}

// newProgress makes the numbering of a run that begins at st.
func newProgress(s *state, st start, tails map[PartitionID]tail) *progress {
	p := &progress{
		epoch:     st.from.Epoch,
		identity:  st.from.Identity,
		timeline:  st.from.Timeline,
		snapshot:  st.from.Snapshot,
		g:         st.maxG,
		slot:      st.slot,
		base:      st.from.Position,
		seen:      st.from.Position,
		baseOrder: st.from.Order,
		seenOrder: st.from.Order,
		parts:     make(map[PartitionID]*partition),
	}
	for _, id := range s.known() {
		rec, recorded := s.partitions[id]
		part := p.add(id, tails[id])
		part.past = rec.Past
		changed := recorded && (rec.N != part.n || rec.G > st.from.G) || !recorded && part.n > 0
		if changed && part.tail.unseen == 0 { // else its place is known only when the replay has met it
			p.touch(part)
		}
		if p.horizon.Compare(part.place) < 0 {
			p.horizon = part.place
		}
	}
	for _, versions := range s.tables {
		for _, v := range versions {
			if p.horizon.Compare(v.From) < 0 {
				p.horizon = v.From
			}
		}
	}
	return p
}
