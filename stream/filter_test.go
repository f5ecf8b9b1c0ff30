package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A log in short: each word is a batch, what:producer@first-last, where what
// is T (transactional), P (plain), A (abort), C (commit) or U (another control
// record).
func parseLog(t *testing.T, log string) []BatchInfo {
	t.Helper()
	var out []BatchInfo
	for word := range strings.FieldsSeq(log) {
		var what byte
		var b BatchInfo
		var last int64
		if n, err := fmt.Sscanf(word, "%c:%d@%d-%d", &what, &b.ProducerID, &b.BaseOffset, &last); n != 4 {
			t.Fatalf("batch %q: %v", word, err)
		}
		b.LastOffsetDelta = int32(last - b.BaseOffset)
		b.Transactional = what != 'P'
		b.Control = map[byte]Control{'A': ControlAbort, 'C': ControlCommit, 'U': ControlUnknown}[what]
		out = append(out, b)
	}
	return out
}

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		name    string
		log     string
		aborted []AbortedTxn
		kept    []int64 // base offsets
	}{
		{"nothing aborted", "T:1@0-4 C:1@5-5 P:-1@6-9", nil, []int64{0, 6}},
		{"one aborted", "T:1@0-4 A:1@5-5 T:1@6-9 C:1@10-10", []AbortedTxn{{1, 0}}, []int64{6}},
		{"interleaved", "T:1@0-1 T:2@2-3 T:1@4-5 A:1@6-6 T:2@7-7 C:2@8-8", []AbortedTxn{{1, 0}}, []int64{2, 7}},
		{"same producer twice", "T:1@0-1 A:1@2-2 T:1@3-4 C:1@5-5 T:1@6-7 A:1@8-8 T:1@9-9", []AbortedTxn{{1, 6}, {1, 0}}, []int64{3, 9}},
		{"list out of order", "T:1@0-1 T:2@2-3 A:2@4-4 A:1@5-5 T:3@6-6", []AbortedTxn{{2, 2}, {1, 0}}, []int64{6}},
		{"plain batch of an aborted producer's id", "T:1@0-1 P:1@2-3 A:1@4-4", []AbortedTxn{{1, 0}}, []int64{2}},
		{"begins inside a batch's offsets", "T:1@0-9 A:1@10-10", []AbortedTxn{{1, 9}}, nil},
		{"begins after", "T:1@0-9 T:2@10-11", []AbortedTxn{{1, 10}}, []int64{0, 10}},
		{"began before the fetch", "T:1@50-51 A:1@52-52 T:1@53-53", []AbortedTxn{{1, 3}}, []int64{53}},
		{"listed twice", "T:1@0-1 A:1@2-2 T:1@3-3", []AbortedTxn{{1, 0}, {1, 0}}, []int64{3}},
		{"commit marker closes nothing", "T:1@0-1 C:1@2-2 T:1@3-3", []AbortedTxn{{1, 0}}, nil},
		{"unknown control record", "T:1@0-1 U:1@2-2 T:1@3-3 A:1@4-4", []AbortedTxn{{1, 0}}, nil},
		{"abort of another", "T:1@0-1 A:2@2-2 T:1@3-3", []AbortedTxn{{1, 0}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Filter
			for range 2 { // Reset forgets the response before
				f.Reset(c.aborted)
				var kept []int64
				for _, b := range parseLog(t, c.log) {
					if f.Keep(&b) {
						kept = append(kept, b.BaseOffset)
					}
				}
				if !slices.Equal(kept, c.kept) {
					t.Fatalf("kept %v, want %v", kept, c.kept)
				}
			}
		})
	}
}

func TestFilterResetForgetsOpenTransactions(t *testing.T) {
	var f Filter
	f.Reset([]AbortedTxn{{1, 0}})
	if f.Keep(&BatchInfo{ProducerID: 1, Transactional: true}) {
		t.Error("an aborted batch is kept")
	}
	f.Reset(nil)
	if !f.Keep(&BatchInfo{ProducerID: 1, Transactional: true}) {
		t.Error("the response before is remembered")
	}
}

func TestFilterKeepsTheCallersList(t *testing.T) {
	list := []AbortedTxn{{2, 9}, {1, 0}}
	var f Filter
	f.Reset(list)
	if !slices.Equal(list, []AbortedTxn{{2, 9}, {1, 0}}) {
		t.Errorf("the list became %v", list)
	}
}

func TestFilterAllocatesNothing(t *testing.T) {
	list := make([]AbortedTxn, 100)
	for i := range list {
		list[i] = AbortedTxn{int64(i % 10), int64(i * 10)}
	}
	var f Filter
	run := func() {
		f.Reset(list)
		for i := range int64(1000) {
			b := BatchInfo{BaseOffset: i, ProducerID: i / 10 % 10, Transactional: true}
			if i%10 == 9 {
				b.Control = ControlAbort
			}
			if f.Keep(&b) {
				t.Fatalf("batch %d is kept", i)
			}
		}
	}
	run()
	if n := testing.AllocsPerRun(10, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The decoder and the filter together, on what Apache Kafka wrote.
func TestFilterOnJavaBatches(t *testing.T) {
	txn := readFile(t, "transactional") // producer 7, offsets 1000-1399
	at := func(set []byte, base int64) []byte {
		return patch(set, func(p []byte) []byte { p[6], p[7] = byte(base>>8), byte(base); return p })
	}
	set := slices.Concat(at(txn, 1000), at(readFile(t, "abort"), 1400), at(txn, 1401), at(readFile(t, "commit"), 1801))
	var d Decoder
	var f Filter
	d.Reset(set)
	f.Reset([]AbortedTxn{{7, 1000}})
	var next int64
	n := 0
	for d.NextBatch() {
		next = d.Batch().NextOffset()
		if !f.Keep(d.Batch()) {
			continue
		}
		for d.NextRecord() {
			if want := int64(1401 + n); d.Record().Offset != want || !identical(owned(d.Record()), sampleAt(n)) {
				t.Fatalf("record %d is at offset %d", n, d.Record().Offset)
			}
			n++
		}
	}
	if d.Err() != nil || n != 400 || next != 1802 {
		t.Errorf("%d records, next offset %d, %v", n, next, d.Err())
	}
}
