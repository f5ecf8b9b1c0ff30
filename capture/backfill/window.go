package backfill

import (
	"encoding/binary"
	"maps"
	"slices"
)

// keyBytes bounds the keys that a Tracker holds for chunks that are being read. Beyond it
// those chunks are read again: a transaction of any size takes no more.
const keyBytes = 16 << 20

// maxNotes bounds the commits that a Tracker holds.
const maxNotes = 1 << 18

// Window is what the log does to a table's keys while one chunk of it is under way.
type Window struct {
	number  uint64 // windows are numbered as they are opened
	rows    *Rows  // nil until it is armed
	seen    Seen
	skip    bool   // the commit that is being noted is in seen
	torn    int    // rows that were dropped for a change of which the log has only a part
	version string // the last version of the table that the log began in the window; "": none
}

// Tracker notes the changes of one table, as the log shows them, for the chunks that are
// under way. It belongs to the goroutine that reads the log. A commit is noted by Begin, any
// number of Changed and Truncated, End; windows are opened between two commits.
type Tracker struct {
	reading []*Window // in the order in which they were opened
	armed   []*Window
	notes   []*note           // in log order
	open    *note             // the commit that is being noted, also the last of notes
	opened  uint64            // number of the last window
	held    int               // bytes of keys
	stale   bool              // notes were given up
	running map[uint64]uint64 // XID → the last window that was opened when a seen-set turned out to have it; 0: none has
	free    []*note           // to be used again
	spare   [][]byte          // their keys
}

// note is a commit that changed the table.
type note struct {
	commit Commit
	after  uint64 // the last window that was opened before it
	all    bool   // it truncated the table
	keys   []byte // that it changed, as hold writes them; only for windows that are reading
	proven uint64 // the last window that was opened when a seen-set turned out to have it
	done   bool   // a seen-set has it
}

// Running says which transactions were in progress some time after the tracker had begun to
// note commits, by their XIDs. The log may have shown one before that, if it was not yet
// visible; so no chunk can be used that has not seen it, unless the log shows it from now on.
// It is called before the first window is opened: what became visible since a statement
// began is not among them.
func (t *Tracker) Running(xids []uint64) {
	t.running = make(map[uint64]uint64, len(xids))
	for _, x := range xids {
		t.running[x] = 0
	}
}

// Shown notes that the log shows a commit, of whatever tables, now.
func (t *Tracker) Shown(c *Commit) {
	if len(t.running) > 0 {
		delete(t.running, c.XID)
	}
}

// Waiting returns how many transactions are waited for, as Running tells.
func (t *Tracker) Waiting() int {
	n := 0
	for _, proven := range t.running {
		if proven == 0 {
			n++
		}
	}
	return n
}

// Stale says that more commits came by than a tracker holds: a new one must take its place.
func (t *Tracker) Stale() bool { return t.stale }

// Open opens a window, before a chunk's statement starts.
func (t *Tracker) Open() *Window {
	t.opened++
	w := &Window{number: t.opened}
	t.reading = append(t.reading, w)
	return w
}

// Begin notes a commit that changes the table.
func (t *Tracker) Begin(c Commit) {
	n := t.newNote()
	n.commit, n.after = c, t.opened
	t.open = n
	t.notes = append(t.notes, n)
	for _, w := range t.armed {
		w.skip = w.seen.Has(&n.commit)
	}
	if len(t.notes) > maxNotes {
		t.giveUp()
	}
}

// Changed notes that the commit changed the row with a key, given framed, and that the log
// has all of the new row, or that there is none.
func (t *Tracker) Changed(key []byte) { t.changed(key, false) }

// ChangedPart is Changed where the log has only a part of the new row (PostgreSQL: a TOASTed
// value that was left alone is not in it).
func (t *Tracker) ChangedPart(key []byte) { t.changed(key, true) }

func (t *Tracker) changed(key []byte, part bool) {
	for _, w := range t.armed {
		if !w.skip && w.rows.Drop(key) && part {
			w.torn++
		}
	}
	if len(t.reading) == 0 || t.open == nil {
		return
	}
	if t.held+len(key) > keyBytes {
		t.giveUpReading()
		return
	}
	t.hold(key, part)
}

// hold notes a key for the commit that is open, after twice its length, and one more if the
// log has a part of the row.
func (t *Tracker) hold(key []byte, part bool) {
	n := t.open
	if k := len(t.spare); n.keys == nil && k > 0 {
		n.keys, t.spare = t.spare[k-1], t.spare[:k-1]
	}
	head := uint64(len(key)) << 1
	if part {
		head |= 1
	}
	before := len(n.keys)
	n.keys = append(binary.AppendUvarint(n.keys, head), key...)
	t.held += len(n.keys) - before
}

// Truncated notes that the commit truncated the table.
func (t *Tracker) Truncated() {
	for _, w := range t.armed {
		if !w.skip {
			w.rows.DropAll()
		}
	}
	if t.open != nil {
		t.open.all = true
	}
}

// Version notes that the log goes on with a version of the table, by what names it.
func (t *Tracker) Version(name string) {
	for _, w := range t.reading {
		w.version = name
	}
	for _, w := range t.armed {
		w.version = name
	}
}

// End ends the commit.
func (t *Tracker) End() { t.open = nil }

// Arm gives an open window its chunk, whose rows were written under a version of the table.
// It returns false if the chunk is of no use and must be read again, in a new window; so it
// is if the window was closed in the meantime.
func (t *Tracker) Arm(w *Window, c *Chunk, version string) bool {
	usable := t.sawRunning(c.Seen) && !t.stale && slices.Contains(t.reading, w)
	for _, n := range t.notes {
		if c.Seen.Has(&n.commit) {
			if !n.done {
				n.done, n.proven = true, t.opened
			}
			continue
		}
		if n.after < w.number {
			usable = false // shown before, and not seen: an old row may be among these
		}
		w.torn += n.drop(c.Rows)
	}
	t.reading = slices.DeleteFunc(t.reading, func(r *Window) bool { return r == w })
	t.prune()
	if !usable || !w.Holds(version) {
		return false
	}
	w.rows, w.seen = c.Rows, c.Seen
	w.skip = t.open != nil && c.Seen.Has(&t.open.commit)
	t.armed = append(t.armed, w)
	return true
}

// sawRunning says whether a chunk has seen all transactions that were in progress. One that
// it has is not waited for any longer, but statements that began earlier may not have seen
// it: prune forgets it.
func (t *Tracker) sawRunning(seen Seen) bool {
	all := true
	for x, proven := range t.running {
		switch {
		case !seen.Has(&Commit{XID: x}):
			all = false
		case proven == 0:
			t.running[x] = t.opened
		}
	}
	return all
}

// Holds says whether the log began no other version of the table in the window.
func (w *Window) Holds(version string) bool { return w.version == "" || w.version == version }

// Close ends a window: its chunk is written, or given up.
func (t *Tracker) Close(w *Window) {
	is := func(o *Window) bool { return o == w }
	t.reading = slices.DeleteFunc(t.reading, is)
	t.armed = slices.DeleteFunc(t.armed, is)
	t.prune()
}

// Torn returns how many rows the chunk has lost to changes of which the log has only a part:
// what they left alone is nowhere else. Before it is written, a chunk with such rows is read
// again.
func (w *Window) Torn() int { return w.torn }

// drop drops the rows that the commit changed. It returns how many of them the log has only a
// part of.
func (n *note) drop(rows *Rows) (torn int) {
	if n.all {
		rows.DropAll()
	}
	for rest := n.keys; len(rest) > 0; {
		head, at := binary.Uvarint(rest)
		end := at + int(head>>1)
		if rows.Drop(rest[at:end]) && head&1 == 1 {
			torn++
		}
		rest = rest[end:]
	}
	return torn
}

// giveUpReading gives up the chunks that are being read, and the keys noted for them.
func (t *Tracker) giveUpReading() {
	clear(t.reading)
	t.reading = t.reading[:0]
	t.forgetKeys(t.opened + 1)
}

// giveUp gives up everything that rests on notes.
func (t *Tracker) giveUp() {
	t.stale = true
	t.giveUpReading()
	clear(t.notes)
	t.notes = t.notes[:0]
}

// prune gives up what no window needs: keys of commits before the first window that is
// reading, and commits that every further statement sees. That holds for a commit that a
// seen-set has once the windows that were open then are armed or closed, since all
// statements ask the same server.
func (t *Tracker) prune() {
	first := t.opened + 1
	if len(t.reading) > 0 {
		first = t.reading[0].number
	}
	t.forgetKeys(first)
	left := t.notes[:0]
	for _, n := range t.notes {
		if n.done && n.proven < first && n != t.open {
			if len(t.free) < kept {
				t.free = append(t.free, n)
			}
			continue
		}
		left = append(left, n)
	}
	clear(t.notes[len(left):])
	t.notes = left
	maps.DeleteFunc(t.running, func(_, proven uint64) bool { return proven > 0 && proven < first })
}

// forgetKeys gives up the keys of commits that came before the window with a number.
func (t *Tracker) forgetKeys(number uint64) {
	t.held = 0
	for _, n := range t.notes {
		if n.after >= number {
			t.held += len(n.keys)
			continue
		}
		if c := cap(n.keys); c > 0 && c <= keptBytes && len(t.spare) < kept {
			t.spare = append(t.spare, n.keys[:0])
		}
		n.keys = nil
	}
}

// What a tracker keeps to be used again: how many notes and key buffers, and of what size.
const (
	kept      = 64
	keptBytes = 16 << 10
)

func (t *Tracker) newNote() *note {
	k := len(t.free)
	if k == 0 {
		return &note{}
	}
	n := t.free[k-1]
	t.free = t.free[:k-1]
	*n = note{}
	return n
}
