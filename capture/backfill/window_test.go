package backfill

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// framedKey is a key of some bytes that says n.
func framedKey(n, size int) []byte {
	key := make([]byte, 5+size)
	binary.BigEndian.PutUint64(key[5:], uint64(n))
	return key
}

// rowsOf returns rows with keys from ≤ n < to.
func rowsOf(from, to int) *Rows {
	var r Rows
	for n := from; n < to; n++ {
		r.Add(framedKey(n, 8), []byte("a value of the row"))
	}
	return &r
}

// note notes a commit that changes keys.
func (t *Tracker) noteCommit(xid uint64, keys ...[]byte) {
	t.Begin(Commit{XID: xid})
	for _, k := range keys {
		t.Changed(k)
	}
	t.End()
}

// keptKeys is the memory that a tracker holds for keys.
func (t *Tracker) keptKeys() int {
	n := 0
	for _, notes := range [][]*note{t.notes, t.free[:cap(t.free)]} {
		for _, note := range notes {
			if note != nil {
				n += cap(note.keys)
			}
		}
	}
	for _, b := range t.spare[:cap(t.spare)] {
		n += cap(b)
	}
	return n
}

func TestArmDrops(t *testing.T) {
	tests := []struct {
		name string
		do   func(tr *Tracker)
		seen seenBelow // commits that the chunk has seen
		left int
	}{
		{"nothing", func(*Tracker) {}, 0, 10},
		{"unseen", func(tr *Tracker) { tr.noteCommit(1, framedKey(3, 8), framedKey(99, 8)) }, 0, 9},
		{"seen", func(tr *Tracker) { tr.noteCommit(1, framedKey(3, 8)) }, 1, 10},
		{"one of two", func(tr *Tracker) {
			tr.noteCommit(1, framedKey(3, 8))
			tr.noteCommit(2, framedKey(4, 8), framedKey(4, 8), framedKey(5, 8))
		}, 1, 8},
		{"truncated", func(tr *Tracker) { tr.Begin(Commit{XID: 1}); tr.Truncated(); tr.End() }, 0, 0},
		{"amid a commit", func(tr *Tracker) { tr.Begin(Commit{XID: 1}); tr.Changed(framedKey(1, 8)) }, 0, 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tr Tracker
			w := tr.Open()
			tt.do(&tr)
			rows := rowsOf(0, 10)
			if !tr.Arm(w, &Chunk{Rows: rows, Seen: tt.seen}, "a") {
				t.Fatal("of no use")
			}
			if rows.Left() != tt.left {
				t.Errorf("%d rows are left, want %d", rows.Left(), tt.left)
			}
		})
	}
}

// What comes after a chunk is armed drops rows at once.
func TestArmedDrops(t *testing.T) {
	var tr Tracker
	w := tr.Open()
	rows := rowsOf(0, 10)
	tr.Begin(Commit{XID: 1})
	tr.Changed(framedKey(0, 8))
	if !tr.Arm(w, &Chunk{Rows: rows, Seen: seenBelow(2)}, "a") {
		t.Fatal("of no use")
	}
	tr.Changed(framedKey(1, 8))
	tr.End()
	tr.noteCommit(2, framedKey(2, 8))
	if rows.Left() != 10 {
		t.Errorf("commits that were seen dropped %d rows", 10-rows.Left())
	}
	tr.noteCommit(3, framedKey(3, 8), framedKey(4, 8), framedKey(3, 8))
	if rows.Left() != 8 {
		t.Errorf("%d rows are left, want 8", rows.Left())
	}
	tr.Close(w)
	tr.noteCommit(4, framedKey(5, 8))
	if rows.Left() != 8 {
		t.Error("a closed window drops rows")
	}
}

func TestArmRefuses(t *testing.T) {
	tests := []struct {
		name string
		do   func(tr *Tracker) *Window
	}{
		{"shown before", func(tr *Tracker) *Window { tr.noteCommit(9); return tr.Open() }},
		{"opened amid a commit", func(tr *Tracker) *Window {
			tr.Begin(Commit{XID: 9})
			w := tr.Open()
			tr.End()
			return w
		}},
		{"in progress", func(tr *Tracker) *Window { tr.Running([]uint64{9}); return tr.Open() }},
		{"another version", func(tr *Tracker) *Window { w := tr.Open(); tr.Version("b"); return w }},
		{"a version and back", func(tr *Tracker) *Window {
			w := tr.Open()
			tr.Version("a")
			tr.Version("b")
			return w
		}},
		{"closed", func(tr *Tracker) *Window { w := tr.Open(); tr.Close(w); return w }},
		{"armed before", func(tr *Tracker) *Window {
			w := tr.Open()
			tr.Arm(w, &Chunk{Rows: rowsOf(0, 1), Seen: seenBelow(0)}, "a")
			return w
		}},
		{"of another tracker", func(*Tracker) *Window { return new(Tracker).Open() }},
		{"too many keys", func(tr *Tracker) *Window {
			w := tr.Open()
			tr.noteCommit(1, make([]byte, keyBytes/2), make([]byte, keyBytes/2))
			return w
		}},
		{"too many commits", func(tr *Tracker) *Window {
			w := tr.Open()
			for range maxNotes + 1 {
				tr.noteCommit(1)
			}
			if !tr.Stale() || len(tr.notes) > maxNotes {
				panic("not stale")
			}
			return w
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tr Tracker
			if tr.Arm(tt.do(&tr), &Chunk{Rows: rowsOf(0, 1), Seen: seenBelow(5)}, "a") {
				t.Error("armed")
			}
			if len(tr.reading) > 0 || tr.held > 0 {
				t.Errorf("%d windows and %d bytes are left", len(tr.reading), tr.held)
			}
		})
	}
}

// A chunk that is armed needs no notes: neither too many keys nor too many commits matter.
func TestArmedStays(t *testing.T) {
	var tr Tracker
	w := tr.Open()
	rows := rowsOf(0, 2)
	if !tr.Arm(w, &Chunk{Rows: rows, Seen: seenBelow(0)}, "a") {
		t.Fatal("of no use")
	}
	tr.Open()
	tr.noteCommit(1, make([]byte, keyBytes+1))
	for range maxNotes + 1 {
		tr.noteCommit(2)
	}
	tr.noteCommit(3, framedKey(1, 8))
	if !w.Holds("a") || rows.Left() != 1 {
		t.Errorf("%d rows are left, want 1", rows.Left())
	}
	if tr.Version("b"); w.Holds("a") || !w.Holds("b") {
		t.Error("a version after the chunk was armed is not noted")
	}
}

func TestTorn(t *testing.T) {
	for _, armed := range []bool{false, true} {
		var tr Tracker
		w := tr.Open()
		chunk := &Chunk{Rows: rowsOf(0, 10), Seen: seenBelow(1)}
		if armed && !tr.Arm(w, chunk, "a") {
			t.Fatal("of no use")
		}
		part := func(xid uint64, n int) {
			tr.Begin(Commit{XID: xid})
			tr.ChangedPart(framedKey(n, 8))
			tr.End()
		}
		part(1, 2) // seen
		part(2, 3)
		part(3, 3) // the same row
		part(4, 99)
		tr.noteCommit(5, framedKey(4, 8))
		part(6, 4) // the log has had the row
		if !armed && !tr.Arm(w, chunk, "a") {
			t.Fatal("of no use")
		}
		if w.Torn() != 1 || chunk.Rows.Left() != 8 {
			t.Errorf("armed %v: %d rows are torn, want 1; %d are left, want 8", armed, w.Torn(), chunk.Rows.Left())
		}
	}
}

func TestRunning(t *testing.T) {
	var tr Tracker
	arm := func(w *Window, seen Seen) bool { return tr.Arm(w, &Chunk{Rows: rowsOf(0, 1), Seen: seen}, "a") }
	wants := func(n int) {
		t.Helper()
		if tr.Waiting() != n {
			t.Errorf("%d are waited for, want %d", tr.Waiting(), n)
		}
	}
	tr.Running([]uint64{3, 4, 5})
	wants(3)
	tr.Shown(&Commit{XID: 5})
	tr.Shown(&Commit{XID: 6})
	wants(2)
	early := tr.Open()
	if arm(tr.Open(), seenBelow(3)) {
		t.Error("4 is not seen")
	}
	wants(1)
	if !arm(tr.Open(), seenBelow(4)) {
		t.Error("all are seen")
	}
	wants(0)
	if arm(early, seenBelow(2)) {
		t.Error("a statement from before has not seen 3")
	}
	if len(tr.running) > 0 {
		t.Errorf("%d are kept for no window", len(tr.running))
	}
}

// TestKeysAreGivenBack: large transactions that no seen-set has for long leave no memory.
func TestKeysAreGivenBack(t *testing.T) {
	var tr Tracker
	big := make([]byte, 1<<20)
	for n := range 20 {
		w := tr.Open()
		tr.noteCommit(100, big)
		for range 100 {
			tr.noteCommit(100, framedKey(n, 8))
		}
		tr.Close(w)
	}
	if got := tr.keptKeys(); got > 4<<20 || tr.held != 0 {
		t.Errorf("%d KiB are kept, %d bytes counted", got>>10, tr.held)
	}
	tr.Arm(tr.Open(), &Chunk{Rows: rowsOf(0, 1), Seen: seenBelow(100)}, "a")
	if len(tr.notes) > 0 || len(tr.free) > kept || tr.keptKeys() > 4<<20 {
		t.Errorf("%d commits that were seen are kept, %d to be used again, %d KiB", len(tr.notes), len(tr.free), tr.keptKeys()>>10)
	}
}

// TestHeld: what is counted is what is held, over any mix of windows.
func TestHeld(t *testing.T) {
	var tr Tracker
	windows := []*Window{}
	for n := range 300 {
		if n%3 == 0 {
			windows = append(windows, tr.Open())
		}
		if n%7 == 0 {
			w := windows[0]
			windows = windows[1:]
			tr.Arm(w, &Chunk{Rows: rowsOf(0, 1), Seen: seenBelow(n - 20)}, "a")
		}
		tr.noteCommit(uint64(n), framedKey(n, 8+n), framedKey(n, 200))
		held := 0
		for _, o := range tr.notes {
			held += len(o.keys)
		}
		if held != tr.held {
			t.Fatalf("after commit %d: %d bytes are counted, %d held", n, tr.held, held)
		}
	}
}

// steady is a tracker in the middle of its work: one window reads, two are armed.
func steady() (*Tracker, [][]byte) {
	tr := &Tracker{}
	keys := make([][]byte, 1000)
	for n := range keys {
		keys[n] = framedKey(n*50, 8)
	}
	for n := range 2 {
		w := tr.Open()
		tr.Arm(w, &Chunk{Rows: rowsOf(n*20_000, (n+1)*20_000), Seen: seenBelow(0)}, "a")
	}
	return tr, keys
}

func TestChangedAllocatesNothing(t *testing.T) {
	tr, keys := steady()
	seen := Seen(seenBelow(1 << 40))
	chunk := &Chunk{Rows: rowsOf(0, 10), Seen: seen}
	xid := uint64(0)
	round := func() {
		w := tr.Open() // allocates: once a chunk
		for range 20 {
			xid++
			tr.Begin(Commit{XID: xid})
			for _, k := range keys[:50] {
				tr.Changed(k)
			}
			tr.End()
		}
		tr.Arm(w, chunk, "a")
		tr.Close(w)
	}
	round()
	if n := testing.AllocsPerRun(50, round); n > 2 {
		t.Errorf("%v allocations for each chunk with 20 commits, want at most 2", n)
	}
	tr.Open()
	tr.Begin(Commit{XID: 1})
	if n := testing.AllocsPerRun(1000, func() {
		tr.open.keys, tr.held = tr.open.keys[:0], 0
		for _, k := range keys {
			tr.Changed(k)
		}
	}); n != 0 {
		t.Errorf("%v allocations in Changed", n)
	}
}

func BenchmarkChanged(b *testing.B) {
	for _, reading := range []bool{false, true} {
		b.Run(fmt.Sprintf("reading=%v", reading), func(b *testing.B) {
			tr, keys := steady()
			if reading {
				tr.Open()
			}
			tr.Begin(Commit{XID: 1})
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%100_000 == 0 {
					tr.open.keys, tr.held = tr.open.keys[:0], 0
				}
				tr.Changed(keys[n%len(keys)])
			}
		})
	}
}

// BenchmarkArm is with as many commits noted as may come by while a chunk is read.
func BenchmarkArm(b *testing.B) {
	for _, commits := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(commits), func(b *testing.B) {
			tr, keys := steady()
			first := tr.Open()
			for n := range commits {
				tr.noteCommit(uint64(n+1), keys[n%len(keys)])
			}
			chunk := &Chunk{Rows: rowsOf(0, 20_000), Seen: seenBelow(commits / 2)}
			b.ReportAllocs()
			for b.Loop() {
				w := tr.Open()
				tr.Arm(w, chunk, "a")
				tr.Close(w)
			}
			tr.Close(first)
		})
	}
}
