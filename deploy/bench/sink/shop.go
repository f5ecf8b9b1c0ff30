package main

import "strconv"

// counts is what was changed.
type counts struct{ inserts, updates, deletes, transactions int }

// gone is the version of an order that was deleted.
const gone = 0xff

// shop decides what changes, always the same for a number of changes.
type shop struct {
	state    uint64
	versions []uint8 // by id
	live     []int32 // ids
	counts   counts
}

func (s *shop) random(n int) int {
	s.state++
	return int(mix(s.state) % uint64(n))
}

// next makes one change: op c, u or d, and the order's version afterwards.
func (s *shop) next() (op byte, id int64, version uint8) {
	kind := s.random(100)
	if kind < 80 || len(s.live) == 0 {
		id = int64(len(s.versions))
		s.versions = append(s.versions, 0)
		s.live = append(s.live, int32(id))
		s.counts.inserts++
		return 'c', id, 0
	}
	i := s.random(len(s.live))
	id = int64(s.live[i])
	if kind < 95 {
		s.versions[id] = min(s.versions[id]+1, gone-1)
		s.counts.updates++
		return 'u', id, s.versions[id]
	}
	s.live[i] = s.live[len(s.live)-1]
	s.live = s.live[:len(s.live)-1]
	s.versions[id] = gone
	s.counts.deletes++
	return 'd', id, gone
}

// final returns COPY text of the orders that are there at the end, and of the keys of those
// that are not any more.
func (s *shop) final() (rows, keys []byte) {
	var o order
	for id, version := range s.versions {
		o.make(int64(id), version)
		if version == gone {
			keys = append(strconv.AppendInt(keys, int64(id), 10), '\n')
		} else {
			rows = o.appendCopy(rows)
		}
	}
	return rows, keys
}
