package backfill

import (
	"bytes"
	"hash/maphash"
	"iter"
	"slices"

	"github.com/tailrace/tailrace/schemas"
)

// Rows are the records of a chunk: framed Avro keys and values, in one buffer that is used
// again for the next chunk. They belong to one goroutine at a time.
type Rows struct {
	buf     []byte
	ends    []end
	dropped []bool  // empty: none
	left    int     // rows that are not dropped
	slots   []int32 // hash table of the keys' bodies: row + 1, 0: free; made when it is asked for first
	hashed  bool    // slots is of these rows
}

// end is where a row's key and its value end in the buffer.
type end struct{ key, value int }

// Add appends a row, before any is dropped. It copies both. No two rows have the same key.
func (r *Rows) Add(key, value []byte) {
	r.buf = append(append(r.buf, key...), value...)
	r.ends = append(r.ends, end{len(r.buf) - len(value), len(r.buf)})
	r.left++
}

// Len returns how many rows there are, dropped or not.
func (r *Rows) Len() int { return len(r.ends) }

// Left returns how many are not dropped.
func (r *Rows) Left() int { return r.left }

// Bytes returns the size of all keys and values.
func (r *Rows) Bytes() int { return len(r.buf) }

// Reset empties r for the next chunk.
func (r *Rows) Reset() {
	*r = Rows{buf: r.buf[:0], ends: r.ends[:0], dropped: r.dropped[:0], slots: r.slots[:0]}
}

// Drop drops the row with a key, given framed or of another schema version: what counts is
// its Avro body. It says whether there was one that was not dropped before.
func (r *Rows) Drop(key []byte) bool {
	if r.left == 0 || len(key) < schemas.FrameSize {
		return false
	}
	i := r.find(key[schemas.FrameSize:])
	if i < 0 {
		return false
	}
	if n := len(r.ends); len(r.dropped) < n {
		r.dropped = slices.Grow(r.dropped, n)[:n]
		clear(r.dropped)
	}
	if r.dropped[i] {
		return false
	}
	r.dropped[i] = true
	r.left--
	return true
}

var seed = maphash.MakeSeed()

// find returns the row with the key of this body, or -1.
func (r *Rows) find(body []byte) int {
	if !r.hashed {
		r.hash()
	}
	return int(*r.slot(body)) - 1
}

// hash fills slots.
func (r *Rows) hash() {
	n := 16
	for n < 2*len(r.ends) {
		n *= 2
	}
	if cap(r.slots) < n {
		r.slots = make([]int32, n)
	}
	r.slots = r.slots[:n]
	clear(r.slots)
	r.hashed = true
	for i := range r.ends {
		*r.slot(r.body(i)) = int32(i + 1)
	}
}

// slot returns where the row with the key of this body stands, or would.
func (r *Rows) slot(body []byte) *int32 {
	mask := uint64(len(r.slots) - 1)
	for at := maphash.Bytes(seed, body) & mask; ; at = (at + 1) & mask {
		if i := r.slots[at]; i == 0 || bytes.Equal(r.body(int(i-1)), body) {
			return &r.slots[at]
		}
	}
}

// body returns the Avro body of a row's key.
func (r *Rows) body(i int) []byte {
	from := 0
	if i > 0 {
		from = r.ends[i-1].value
	}
	return r.buf[from+schemas.FrameSize : r.ends[i].key]
}

// DropAll drops every row.
func (r *Rows) DropAll() { r.left = 0 }

// All returns the framed key and value of each row that is not dropped, in the order in
// which they were added. They are valid until Reset.
func (r *Rows) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		from := 0
		for i, e := range r.ends {
			if r.left == 0 {
				return
			}
			if (len(r.dropped) == 0 || !r.dropped[i]) && !yield(r.buf[from:e.key], r.buf[e.key:e.value]) {
				return
			}
			from = e.value
		}
	}
}
