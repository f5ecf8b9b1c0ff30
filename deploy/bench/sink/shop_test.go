package main

import (
	"bytes"
	"testing"
)

// The yardstick's text must be what the changes come to.
func TestFinalIsWhatTheChangesComeTo(t *testing.T) {
	const n = 20_000
	var s shop
	want := make(map[int64]uint8)
	for range n {
		switch op, id, version := s.next(); op {
		case 'c', 'u':
			if _, there := want[id]; there != (op == 'u') {
				t.Fatalf("%c of order %d, there before: %t", op, id, there)
			}
			want[id] = version
		case 'd':
			if _, there := want[id]; !there {
				t.Fatalf("order %d is deleted and was not there", id)
			}
			delete(want, id)
		}
	}
	c := s.counts
	if c.inserts < n*78/100 || c.inserts > n*82/100 || c.updates < n*14/100 || c.updates > n*16/100 || c.inserts+c.updates+c.deletes != n {
		t.Errorf("of %d changes %d are inserts, %d updates, %d deletes", n, c.inserts, c.updates, c.deletes)
	}
	rows, keys := s.final()
	if got := bytes.Count(keys, []byte("\n")); got != c.deletes {
		t.Errorf("%d keys of %d deletes", got, c.deletes)
	}
	var o order
	for line := range bytes.Lines(rows) {
		if bytes.Count(line, []byte("\t")) != 12 {
			t.Fatalf("not 13 columns: %q", line)
		}
		var id int64
		for _, digit := range line[:bytes.IndexByte(line, '\t')] {
			id = id*10 + int64(digit-'0')
		}
		version, there := want[id]
		if o.make(id, version); !there || !bytes.Equal(o.appendCopy(nil), line) {
			t.Fatalf("order %d, there: %t: %q", id, there, line)
		}
		delete(want, id)
	}
	if len(want) > 0 {
		t.Errorf("%d orders are missing", len(want))
	}
}
