package backfill

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/tailrace/tailrace/schemas"
)

// The model: a table in memory whose commits are logged first, visible to statements later
// and decoded by the tailer at another time, and a consumer of what is written. Exhaustive
// and random tests drive the same model, the code under test, and its mutants.
//
// Each change gives its keys a version. A consumer that meets a lower version than it has
// met of a key was given an old row.

const modelKeys = 12

type table [modelKeys]row

// row is a row, or that there is none.
type row struct{ version, part int32 }

type op uint8

const (
	opInsert op = iota
	opUpdate
	opUpdatePart // leaves a part of the row alone, which the log has not
	opDelete
	opMove // the key changes
	opTruncate
	opAlter // another version of the table
)

func (o op) String() string {
	return [...]string{"insert", "update", "update part of", "delete", "move", "truncate", "alter"}[o]
}

type change struct {
	op      op
	key, to int
	version int32
}

func (c change) String() string {
	if c.op == opMove {
		return fmt.Sprintf("move %d to %d", c.key, c.to)
	}
	if c.op >= opTruncate {
		return c.op.String()
	}
	return fmt.Sprintf("%s %d", c.op, c.key)
}

// keys returns the keys of rows that are changed, of all but opTruncate and opAlter.
func (c change) keys() []int {
	if c.op == opMove {
		return []int{c.key, c.to}
	}
	return []int{c.key}
}

// legal says whether a change can be made to the rows of a table.
func (c change) legal(rows *table) bool {
	switch c.op {
	case opInsert:
		return rows[c.key] == row{}
	case opUpdate, opUpdatePart, opDelete:
		return rows[c.key] != row{}
	case opMove:
		return rows[c.key] != row{} && rows[c.to] == row{}
	default:
		return true
	}
}

func (c change) apply(rows *table) {
	switch c.op {
	case opInsert, opUpdate:
		rows[c.key] = row{c.version, c.version}
	case opUpdatePart:
		rows[c.key].version = c.version
	case opDelete:
		rows[c.key] = row{}
	case opMove:
		rows[c.key], rows[c.to] = row{}, row{c.version, c.version}
	case opTruncate:
		*rows = table{}
	}
}

// commit is a transaction. Its number in the log, plus one, is its XID.
type commit struct {
	changes []change
	schema  int // version of the table from this commit on
	visible bool
}

func (c *commit) exclusive() bool {
	return slices.ContainsFunc(c.changes, func(c change) bool { return c.op >= opTruncate })
}

// world is the source, the tailer, and the consumer.
type world struct {
	code code

	rows    table // as logged: what writers build on
	seen    table // as statements see it
	log     []commit
	written []int // version → number of the commit that made it; 0 and 1 were there before
	locks   [modelKeys]bool
	locked  int // commits that are logged and not visible
	alone   bool

	decoded int // commits that the tailer has written
	at      int // changes of the next one that it has written
	open    bool
	schema  int // of the log, as decoded
	noting  bool

	got  table            // the consumer's rows
	last [modelKeys]int32 // last version of each key that the consumer has met

	dropped, emitted int // rows of chunks
	bad              string
}

// fill makes the rows of which there is no commit in the log.
func (w *world) fill(keys ...int) {
	w.written = append(w.written[:0], -1, -1)
	for _, k := range keys {
		w.rows[k], w.seen[k] = row{1, 1}, row{1, 1}
	}
}

func (w *world) fail(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}

// free says whether a transaction gets its locks, which are held until it is visible.
func (w *world) free(changes []change) bool {
	if w.alone {
		return false
	}
	for _, c := range changes {
		if c.op >= opTruncate && w.locked > 0 || w.locks[c.key] || c.op == opMove && w.locks[c.to] {
			return false
		}
	}
	return true
}

// commit logs a transaction, if it gets its locks and its changes are legal.
func (w *world) commit(changes []change) bool {
	rows := w.rows
	if !w.free(changes) {
		return false
	}
	for _, c := range changes {
		if !c.legal(&rows) {
			return false
		}
		c.version = 1 // any
		c.apply(&rows)
	}
	n := len(w.log)
	c := commit{changes: slices.Clone(changes)}
	if n > 0 {
		c.schema = w.log[n-1].schema
	}
	for i := range c.changes {
		c.changes[i].version = int32(len(w.written))
		w.written = append(w.written, n)
		c.changes[i].apply(&w.rows)
		if c.changes[i].op == opAlter {
			c.schema++
		}
	}
	w.log = append(w.log, c)
	w.lock(&c, true)
	return true
}

func (w *world) lock(c *commit, to bool) {
	w.locked++
	if !to {
		w.locked -= 2
	}
	w.alone = to && c.exclusive()
	for _, c := range c.changes {
		if c.op < opTruncate {
			w.locks[c.key] = to
		}
		if c.op == opMove {
			w.locks[c.to] = to
		}
	}
}

// show makes a commit visible.
func (w *world) show(n int) {
	c := &w.log[n]
	for _, ch := range c.changes {
		ch.apply(&w.seen)
	}
	c.visible = true
	w.lock(c, false)
}

// altering says whether an ALTER TABLE is logged and not visible.
func (w *world) altering() bool {
	return w.alone && w.log[len(w.log)-1].changes[0].op == opAlter
}

// schemaSeen returns the version of the table as statements see it.
func (w *world) schemaSeen() int {
	if len(w.log) == 0 {
		return 0
	}
	return w.log[len(w.log)-1].schema
}

// visible returns what a statement of now sees, but for those commits in lacks.
func (w *world) visible(lacks uint64) seenBits {
	s := make(seenBits, len(w.log)/64+1)
	for i, c := range w.log {
		if c.visible && (i >= 64 || lacks>>i&1 == 0) {
			s[i/64] |= 1 << (i % 64)
		}
	}
	return s
}

// invisible returns the XIDs of commits that are in the log and not visible.
func (w *world) invisible() []uint64 {
	var xids []uint64
	for i, c := range w.log {
		if !c.visible {
			xids = append(xids, uint64(i+1))
		}
	}
	return xids
}

// read is how far the tailer has read the log.
func (w *world) read() Place { return Place{Offset: uint64(w.decoded)} }

// end is where the log ends.
func (w *world) end() Place { return Place{Offset: uint64(len(w.log))} }

// decode writes the next part of the log: the begin of a commit, one change, or the end of
// the commit.
func (w *world) decode() {
	c := &w.log[w.decoded]
	switch {
	case !w.open:
		w.open, w.at = true, 0
		if w.noting {
			w.code.begin(Commit{Pos: uint64(w.decoded), XID: uint64(w.decoded + 1)})
		}
	case w.at < len(c.changes):
		w.change(c, c.changes[w.at])
		w.at++
	default:
		w.open = false
		w.decoded++
		if w.noting {
			w.code.t.End()
		}
	}
}

// change writes one change of the log.
func (w *world) change(c *commit, ch change) {
	if w.schema != c.schema && ch.op != opAlter {
		w.schema = c.schema
		if w.noting {
			w.code.t.Version(schemaName(c.schema))
		}
	}
	if w.noting {
		w.code.change(ch)
	}
	whole := row{ch.version, ch.version}
	switch ch.op {
	case opAlter:
	case opTruncate:
		for k := range w.got {
			w.meet(k, ch.version, row{})
		}
	case opMove:
		w.meet(ch.key, ch.version, row{})
		w.meet(ch.to, ch.version, whole)
	case opDelete:
		w.meet(ch.key, ch.version, row{})
	case opUpdatePart:
		has := w.got[ch.key]
		if has != (row{}) { // there is nothing to update where the row has not come yet
			has.version = ch.version
		}
		w.meet(ch.key, ch.version, has)
	default:
		w.meet(ch.key, ch.version, whole)
	}
}

func schemaName(n int) string { return [...]string{"a", "b", "c", "d", "e", "f", "g", "h"}[n%8] }

// meet is the consumer: the change's version, and what is the row now.
func (w *world) meet(key int, version int32, now row) {
	if version <= w.last[key] {
		w.fail("key %d: version %d of the log after %d", key, version, w.last[key])
	}
	w.last[key], w.got[key] = version, now
}

// meetRow is the consumer of a chunk's row.
func (w *world) meetRow(key int, r row) {
	version := r.version
	switch {
	case version < w.last[key] && w.got[key] == row{}:
		w.fail("key %d: resurrected: row of version %d after a delete of version %d", key, version, w.last[key])
	case version < w.last[key]:
		w.fail("key %d: stale: row of version %d after version %d", key, version, w.last[key])
	case w.written[version] >= w.decoded:
		w.fail("key %d: early: row of version %d before its commit", key, version)
	}
	w.last[key], w.got[key] = version, r
	w.emitted++
}

// write writes a chunk that saw rows in from ≤ key < to.
func (w *world) write(c *Chunk, saw *table, from, to int) {
	if w.open {
		w.fail("rows written within a transaction")
	}
	var written [modelKeys]bool
	for key, value := range c.Rows.All() {
		k := int(key[schemas.FrameSize+w.code.frame()])
		r := row{int32(binary.BigEndian.Uint32(value)), int32(binary.BigEndian.Uint32(value[4:]))}
		if k < from || k >= to || saw[k] != r || written[k] {
			w.fail("key %d: row of version %d was not read", k, r.version)
			return
		}
		written[k] = true
		w.meetRow(k, r)
	}
	for k := from; k < to; k++ {
		if saw[k] == (row{}) || written[k] {
			continue
		}
		w.dropped++
		if v := saw[k].version; v > w.last[k] || v == 1 && w.last[k] == 1 {
			w.fail("key %d: lost: row of version %d dropped, last is %d", k, v, w.last[k])
		}
	}
}

// same is the last check: everything is decoded, and every chunk is written.
func (w *world) same() {
	if w.decoded != len(w.log) {
		w.fail("the tailer has not read the log")
	}
	if w.got != w.rows {
		w.fail("the consumer has %v, the source %v", w.got, w.rows)
	}
}

// seenBits is the seen-set of the model: commits by their XIDs.
type seenBits []uint64

func (s seenBits) Has(c *Commit) bool {
	n := c.XID - 1
	return n/64 < uint64(len(s)) && s[n/64]>>(n%64)&1 == 1
}

// seenBelow is what the mutant marks takes for a seen-set: all that was logged by then.
type seenBelow uint64

func (s seenBelow) Has(c *Commit) bool { return c.XID <= uint64(s) }

// mutant names something that is wrong with the code under test.
type mutant string

const (
	right        mutant = ""
	marks        mutant = "marks"              // a log position instead of the seen-set
	noReread     mutant = "no re-read"         // Arm's false is ignored
	atOnce       mutant = "emit at once"       // Written is ignored
	noRunning    mutant = "no Running"         // transactions in progress are not asked for
	noTruncate   mutant = "no TRUNCATE"        // it is not noted
	newKey       mutant = "new key"            // a key change notes only the new key
	pruneAll     mutant = "prune all"          // commits that one seen-set has are forgotten
	framed       mutant = "framed keys"        // keys are compared with their schema's id
	runningOnce  mutant = "running once"       // transactions that one seen-set has are forgotten
	skipAll      mutant = "skip all"           // armed: changes drop nothing
	midCommit    mutant = "armed amid commits" // such chunks take the commit for seen
	otherVersion mutant = "other version"      // Version is ignored
	noGiveUp     mutant = "no give up"         // so are keys that are too many to hold
	allWhole     mutant = "all whole"          // that the log has only a part of a row is not noted
	noStale      mutant = "no stale"           // so are commits that are too many to hold
)

// code is the code under test, or a mutant of it.
type code struct {
	t      *Tracker
	mutant mutant
	pad    int // bytes that keys are longer
	buf    []byte
}

func (c *code) begin(at Commit) {
	c.t.Shown(&at)
	c.t.Begin(at)
	for _, w := range c.t.armed {
		if c.mutant == skipAll {
			w.skip = true
		}
	}
}

func (c *code) change(ch change) {
	switch ch.op {
	case opAlter:
	case opTruncate:
		if c.mutant != noTruncate {
			c.t.Truncated()
		}
	case opMove:
		if c.mutant != newKey {
			c.t.Changed(c.key(ch.key, 7))
		}
		c.t.Changed(c.key(ch.to, 7))
	case opUpdatePart:
		if c.mutant == allWhole {
			c.t.Changed(c.key(ch.key, 7))
			return
		}
		c.t.ChangedPart(c.key(ch.key, 7))
	default:
		c.t.Changed(c.key(ch.key, 7))
	}
}

// frame is by how much the place of a key's body is moved.
func (c *code) frame() int {
	if c.mutant == framed {
		return schemas.FrameSize
	}
	return 0
}

// key returns a framed key. It is valid until the next call.
func (c *code) key(k, schema int) []byte {
	c.buf = append(c.buf[:0], 0, 0, 0, 0, byte(schema))
	if c.mutant == framed {
		c.buf = append(c.buf, 0, 0, 0, 0, byte(schema))
	}
	c.buf = append(c.buf, byte(k))
	if n := len(c.buf) + c.pad; c.pad > 0 {
		c.buf = slices.Grow(c.buf, c.pad)[:n]
	}
	return c.buf
}

// fill adds the rows in from ≤ key < to to a chunk: the log's schema has another id.
func (c *code) fill(rows *Rows, saw *table, from, to int) {
	rows.Reset()
	for k := from; k < to; k++ {
		if saw[k] == (row{}) {
			continue
		}
		var value [8]byte
		binary.BigEndian.PutUint32(value[:], uint32(saw[k].version))
		binary.BigEndian.PutUint32(value[4:], uint32(saw[k].part))
		rows.Add(c.key(k, 9), value[:])
	}
}

// seen returns the seen-set of a statement that saw s; the log ended at low when it began.
func (c *code) seen(s seenBits, low int) Seen {
	if c.mutant == marks {
		return seenBelow(low)
	}
	return s
}

func (c *code) running(xids []uint64) {
	if c.mutant == noRunning {
		xids = nil
	}
	c.t.Running(xids)
}

func (c *code) arm(w *Window, ch *Chunk, version string) bool {
	switch c.mutant {
	case otherVersion:
		w.version = ""
	case noGiveUp:
		if !slices.Contains(c.t.reading, w) {
			c.t.reading = append(c.t.reading, w)
		}
	case noStale:
		c.t.stale = false
		if !slices.Contains(c.t.reading, w) {
			c.t.reading = append(c.t.reading, w)
		}
	}
	usable := c.t.Arm(w, ch, version)
	switch c.mutant {
	case pruneAll:
		c.t.notes = slices.DeleteFunc(c.t.notes, func(n *note) bool { return n.done && n != c.t.open })
	case runningOnce:
		for x := range c.t.running {
			if ch.Seen.Has(&Commit{XID: x}) {
				delete(c.t.running, x)
			}
		}
	case midCommit:
		w.skip = c.t.open != nil
	case noReread:
		if !usable {
			w.rows, w.seen = ch.Rows, ch.Seen
			w.skip = c.t.open != nil && w.seen.Has(&c.t.open.commit)
			c.t.armed = append(c.t.armed, w)
			return true
		}
	}
	return usable
}

func (c *code) holds(w *Window, version string) bool {
	return c.mutant == otherVersion || w.Holds(version)
}

func (c *code) stale() bool { return c.mutant != noStale && c.t.Stale() }

func (c *code) written(ch *Chunk, read Place) bool {
	return c.mutant == atOnce || ch.Written(read)
}
