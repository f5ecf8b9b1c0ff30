package sinks

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// parking is what is parked of one partition. It is pure: the chain of entries makes it,
// and it says what becomes of the next change.
type parking struct {
	head  int64 // offset of the last entry; -1: none
	last  int64 // highest offset, in the source topic, of a letter; -1
	asked int64 // offset of the last request that is done; -1
	count int
	lanes map[string]*lane // by key; wholeLane: of the partition
}

// wholeLane is the lane in which changes without a key wait, and then all of the partition.
const wholeLane = ""

// lane is the letters of one key, in the order of the changes. The first is refused; if it
// is not, a request is being done.
type lane []parked

// parked is one letter.
type parked struct {
	at       int64 // its offset in the dead letter topic
	offset   int64 // in the source topic
	refused  bool
	attempts int
	size     int // bytes of key and value
	time     time.Time
}

func newParking() *parking {
	return &parking{head: -1, last: -1, asked: -1, lanes: make(map[string]*lane)}
}

// laneOf returns the lane in which a change waits. ok is false if nothing is before it.
func (s *parking) laneOf(c *Change) (name string, ok bool) {
	if len(s.lanes) == 0 {
		return "", false
	}
	if s.lanes[wholeLane] != nil || c.Key == nil {
		return wholeLane, true
	}
	if s.lanes[string(keyBody(c))] == nil { // does not allocate
		return "", false
	}
	return string(keyBody(c)), true
}

// has says whether the change at offset is a letter of a lane already.
func (s *parking) has(name string, offset int64) bool {
	if offset > s.last {
		return false
	}
	l := s.lanes[name]
	if l == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(*l, offset, func(p parked, offset int64) int { return int(p.offset - offset) })
	return found
}

// add takes in a letter, after all of its lane.
func (s *parking) add(name string, p parked) {
	l := s.lanes[name]
	if l == nil {
		l = new(lane)
		s.lanes[name] = l
	}
	*l = append(*l, p)
	s.last = max(s.last, p.offset)
	s.count++
}

// settle takes in an outcome.
func (s *parking) settle(o *Outcome) {
	gone := make(map[int64]bool, len(o.Applied)+len(o.Dropped))
	for _, offsets := range [][]int64{o.Applied, o.Dropped} {
		for _, offset := range offsets {
			gone[offset] = true
		}
	}
	again := make(map[int64]int, len(o.Again))
	for i := range o.Again {
		again[o.Again[i].Offset] = o.Again[i].Attempts
	}
	for name, l := range s.lanes {
		left := slices.DeleteFunc(*l, func(p parked) bool { return gone[p.offset] })
		s.count -= len(*l) - len(left)
		for i := range left {
			if attempts := again[left[i].offset]; attempts > 0 {
				left[i].refused, left[i].attempts = true, attempts
			}
		}
		if *l = left[:len(left):len(left)]; len(left) == 0 {
			delete(s.lanes, name)
		}
	}
	if o.Done {
		s.asked = max(s.asked, o.Asked)
	}
}

// low returns the offset of the oldest letter; after the head if there is none.
func (s *parking) low() int64 {
	low := s.head + 1
	for _, l := range s.lanes {
		low = min(low, (*l)[0].at)
	}
	return low
}

// position is how the parking's head stands in the target: Offset is after the head, Pos the
// offset of the oldest letter, N how many there are.
func (s *parking) position() Position {
	return Position{Offset: s.head + 1, Place: Place{Pos: uint64(s.low())}, N: uint64(s.count)}
}

// headPartition is under what name the head of a partition's chain stands in the target.
func headPartition(sink string, p Partition) Partition {
	return Partition{Topic: DeadLettersTopic(sink) + ":" + p.Topic, Number: p.Number} // no topic has a colon
}

// task is one letter that a request is about.
type task struct {
	parked
	lane string
	drop bool
}

// select returns what a request means here, in the order of the changes. Letters that came
// after the request are none of it, unless they wait behind one that is.
func (s *parking) tasks(p Partition, r *Request, at int64) []task {
	if at <= s.asked {
		return nil
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(s.lanes)) {
		if first := (*s.lanes[name])[0]; name != wholeLane && (!first.refused || first.at < at && r.means(p, name, first.offset)) {
			names = append(names, name)
		}
	}
	if l := s.lanes[wholeLane]; l != nil && len(names) == len(s.lanes)-1 && (!(*l)[0].refused || (*l)[0].at < at && r.means(p, wholeLane, (*l)[0].offset)) {
		names = append(names, wholeLane)
	}
	var out []task
	for _, name := range names {
		for i, one := range *s.lanes[name] {
			out = append(out, task{one, name, r.Action == ActionDrop && (r.WithWaiting || i == 0 && one.refused)})
		}
	}
	slices.SortFunc(out, func(a, b task) int { return int(a.offset - b.offset) })
	return out
}

// means says whether a request is about a key.
func (r *Request) means(p Partition, name string, first int64) bool {
	if len(r.Keys) == 0 {
		return len(r.Topics) == 0 || slices.Contains(r.Topics, p.Topic)
	}
	return slices.ContainsFunc(r.Keys, func(k ParkedK) bool {
		return k.Topic == p.Topic && k.Partition == p.Number && string(k.Key) == name && k.First == first
	})
}

// chain is entries of one partition as they were read, by their offset.
type chain map[int64]*chained

// chained is an entry with what its record has beside the header.
type chained struct {
	DeadRecord
	key  []byte // of a letter, with the frame
	size int    // of a letter: bytes of key and value
}

// parking follows the chain from its head back, and makes the parking of what it finds.
// Entries before low are not looked for.
func (c chain) parking(head, low int64) (*parking, error) {
	var path []int64
	for at := head; at >= low && at >= 0; {
		e := c[at]
		if e == nil {
			return nil, fmt.Errorf("the record at offset %d is not there", at)
		}
		path = append(path, at)
		prev := e.prev(at)
		if prev >= at {
			return nil, fmt.Errorf("the record at offset %d names a later one", at)
		}
		at = prev
	}
	s := newParking()
	for _, at := range slices.Backward(path) {
		s.take(at, c[at])
	}
	s.head = head
	return s, nil
}

// prev returns the offset of the entry before the one at an offset; -1: none.
func (e *chained) prev(at int64) int64 {
	switch {
	case e.Outcome != nil:
		return e.Outcome.Prev
	case e.Letter.Prev != nil:
		return *e.Letter.Prev
	}
	return at - 1
}

// take takes in an entry.
func (s *parking) take(at int64, e *chained) {
	if e.Outcome != nil {
		s.settle(e.Outcome)
		return
	}
	name := wholeLane
	if !e.Letter.Whole {
		name = string(unframed(e.key))
	}
	s.add(name, parked{at: at, offset: e.Letter.Offset, refused: e.Letter.State == LetterRefused, attempts: e.Letter.Attempts, size: e.size, time: e.Letter.Time})
}
