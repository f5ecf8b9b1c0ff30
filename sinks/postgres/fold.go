package postgres

import (
	"bytes"
	"hash/maphash"
)

// span is a part of a segment's text.
type span struct{ from, to int }

func (s span) empty() bool { return s.from == s.to }

// entry is what a batch does to one key.
type entry struct {
	key     span // the key's Avro body, in keys
	keyLine span // the key as a COPY line, in text; only if deleted
	line    span // the row as it is at the end, a COPY line in text; empty if it is deleted
	deleted bool // the row that the target may have must go; a line may come after it
	partial bool // the line has columns that are unchanged
}

// fold keeps one entry per key, in the order in which keys came first. The zero value is
// ready; Reset keeps its memory.
type fold struct {
	entries []entry
	keys    []byte  // Avro bodies, one after the other
	text    []byte  // COPY lines, each with its newline
	slots   []int32 // open addressing: index into entries + 1; 0: free
	seed    maphash.Seed
	ready   bool
}

func (f *fold) reset() {
	f.entries, f.keys, f.text = f.entries[:0], f.keys[:0], f.text[:0]
	clear(f.slots)
}

// entry returns the entry of a key, which is copied; found says that it was there. It is
// valid until the next call.
func (f *fold) entry(key []byte) (e *entry, found bool) {
	if 2*len(f.entries) >= len(f.slots) {
		f.grow()
	}
	i := f.find(key)
	if n := f.slots[i]; n > 0 {
		return &f.entries[n-1], true
	}
	f.keys = append(f.keys, key...)
	f.entries = append(f.entries, entry{key: span{len(f.keys) - len(key), len(f.keys)}})
	f.slots[i] = int32(len(f.entries))
	return &f.entries[len(f.entries)-1], false
}

// find returns the slot in which key is, or would be.
func (f *fold) find(key []byte) uint64 {
	mask := uint64(len(f.slots) - 1)
	for i := maphash.Bytes(f.seed, key) & mask; ; i = (i + 1) & mask {
		n := f.slots[i]
		if n == 0 || bytes.Equal(f.keyOf(&f.entries[n-1]), key) {
			return i
		}
	}
}

func (f *fold) keyOf(e *entry) []byte { return f.keys[e.key.from:e.key.to] }

// grow doubles the slots.
func (f *fold) grow() {
	if !f.ready {
		f.seed, f.ready = maphash.MakeSeed(), true
	}
	f.slots = make([]int32, max(64, 2*len(f.slots)))
	for i := range f.entries {
		f.slots[f.find(f.keyOf(&f.entries[i]))] = int32(i + 1)
	}
}

// set makes the line at the end of text, from `from` on, what e's row is now.
func (f *fold) set(e *entry, from int, partial bool) {
	line := span{from, len(f.text)}
	if partial && !e.line.empty() {
		line, partial = f.overlay(e.line, line)
	}
	e.line, e.partial = line, partial
}

// overlay appends the newer line with what it has unchanged taken from the older one. It
// says whether something is unchanged even so.
func (f *fold) overlay(older, newer span) (merged span, partial bool) {
	from := len(f.text)
	// Without their newlines; text may move while it grows, these views stay as they are.
	old, line := f.text[older.from:older.to-1], f.text[newer.from:newer.to-1]
	for line != nil {
		var was, is []byte
		was, old = nextField(old)
		is, line = nextField(line)
		if bytes.Equal(is, unchangedField) {
			is = was
		}
		partial = partial || bytes.Equal(is, unchangedField)
		f.text = append(append(f.text, is...), '\t')
	}
	f.text[len(f.text)-1] = '\n'
	return span{from, len(f.text)}, partial
}
