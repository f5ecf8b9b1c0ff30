package capture

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/tailrace/tailrace/schemas"
)

// Position is a place in a source's log from which reading can start: every change of
// every commit that ends at or before it has been seen, none of a later one.
// Positions of one log are totally ordered by (File, Offset).
type Position struct {
	File   uint64 `json:"file,omitempty"` // number of the log file; 0 for PostgreSQL
	Offset uint64 `json:"offset"`         // PostgreSQL: an LSN, the end of a commit or of what a keepalive covered
	Set    string `json:"set,omitempty"`  // GTID set, for sources that resume by one
}

// String writes p as the database does: PostgreSQL's LSN, as 16/B374D848; else file:offset.
func (p Position) String() string {
	if p.File == 0 {
		return fmt.Sprintf("%X/%X", p.Offset>>32, uint32(p.Offset))
	}
	return fmt.Sprintf("%d:%d", p.File, p.Offset)
}

// ParsePosition reads what String writes; a number alone is an offset.
func ParsePosition(text string) (p Position, err error) {
	high, low, hex := strings.Cut(text, "/")
	file, offset, pair := strings.Cut(text, ":")
	var a, b uint64
	switch {
	case hex:
		a, err = strconv.ParseUint(high, 16, 32)
		if err == nil {
			b, err = strconv.ParseUint(low, 16, 32)
		}
		p.Offset = a<<32 | b
	case pair:
		p.File, err = strconv.ParseUint(file, 10, 64)
		if err == nil {
			p.Offset, err = strconv.ParseUint(offset, 10, 64)
		}
	default:
		p.Offset, err = strconv.ParseUint(text, 10, 64)
	}
	if err != nil {
		return Position{}, fmt.Errorf("%q is no position in a log, as 16/B374D848", text)
	}
	return p, nil
}

// Compare returns -1, 0 or 1 as p lies before, at or after q. Set does not count.
func (p Position) Compare(q Position) int {
	switch {
	case p.File != q.File && p.File < q.File, p.File == q.File && p.Offset < q.Offset:
		return -1
	case p == q || p.File == q.File && p.Offset == q.Offset:
		return 0
	}
	return 1
}

// LogInfo is what a source says of its log before anything is changed.
type LogInfo struct {
	Identity string   // which log this is, as stable text: system identifier, slot name
	Ready    bool     // everything the log needs (publication, slot) exists
	Lost     error    // it exists, but the log cannot be read any more, and why (PostgreSQL: the slot was invalidated); Ready is false
	Lowest   Position // PostgreSQL: the slot's confirmed_flush_lsn; a start before it is not possible
	Highest  Position // what the log holds by now; a start after it means that the log was rewound
	Timeline uint32   // PostgreSQL: the server's timeline; 0: the log has none
	Forks    []Fork   // where it left earlier ones
}

// Source reads one database's log. Its methods are called in the order Inspect, then
// Prepare if the log is not ready, then Snapshot if there is to be one, then Run; a Source
// serves one run.
type Source interface {
	// Inspect says which log this is and what of it can be read. It changes nothing and
	// takes nothing from a capture that may still be running; it waits until the log is
	// free to be read (PostgreSQL: until nobody uses the slot) and fails, naming the
	// user, if it does not become free.
	Inspect(ctx context.Context) (LogInfo, error)
	// Prepare creates what the log needs and returns the position from which a first
	// run reads, and with snapshot the tables of which the log has all changes since. What it creates, Inspect reports as Ready from then on. With snapshot it
	// also keeps the tables as they are at that position in sight, for Snapshot.
	Prepare(ctx context.Context, snapshot bool) (Position, []CapturedTable, error)
	// Discard gives up what a Prepare before has created, so that the next one begins
	// anew. It is called for a snapshot that was interrupted.
	Discard(ctx context.Context) error
	// Snapshot writes every row of the captured tables that have no key, as they were at the
	// position that Prepare has returned, to out: Begin with Tx.Read, Table, Change with
	// Op r, Commit with that position, as often as it takes. anew: the topics may hold rows
	// of an earlier epoch, so a Change with Op t comes for each table first, also for those
	// with a key.
	Snapshot(ctx context.Context, anew bool, out Emitter) error
	// Run writes every change committed after from to out, in commit order, until ctx
	// ends or the log cannot be read. It returns ctx's error in the first case.
	Run(ctx context.Context, from Position, out Emitter) error
	// Confirm says that everything up to p is durable, so that the log need not keep it.
	// It never blocks and may be called from any goroutine while Run runs.
	Confirm(p Position)
	// Tables returns the tables whose changes are in the log, from now on if not before: it
	// has those join that the configuration names. It may be called while Run runs.
	Tables(ctx context.Context) ([]CapturedTable, error)
	// Chunker returns what reads tables in chunks. It is closed before the source.
	Chunker(ctx context.Context) (Chunker, error)
	// Wake has Run call the Emitter's Idle soon, if nothing is in flight; and, as long as the
	// log has not been read up to p, find out as soon as possible that it holds nothing
	// more. It never blocks and may be called from any goroutine, also when Run does not run.
	Wake(p Position)
	// Close gives up connections.
	Close() error
}

// Tx is a source transaction as its changes begin.
type Tx struct {
	File       uint64 // place of the commit in the log: number of the file, 0 for PostgreSQL,
	Pos        uint64 // and place in it (PostgreSQL: Begin's final_lsn)
	ID         string // Debezium's transaction id; PostgreSQL `txid:lsn`, decimal. Valid during Begin only.
	XID        uint64 // the transaction's id as Chunker.Running and seen-sets name it; 0: none
	CommitTime int64  // microseconds since 1970-01-01 UTC
	// Read: no transaction of the source, but rows that were read. All such of one
	// snapshot have one place, before the first commit's: their rows are counted on.
	Read bool
}

// TableVersion is what the log has said of a table, before its changes follow.
type TableVersion struct {
	Namespace, Name string
	// Hash is a stable text (hex) over everything that the log said of this version, over
	// what the source had to add to it (a column that turned out to be nullable), and over
	// which of its columns are left out or masked, and how. No secret can be found from it.
	Hash string
	// Log is a stable text (hex) over what the log said alone.
	Log string
	// Keys is a stable text (hex) over how columns of the key are masked; "": not at all. If
	// it is another one, rows of the same version have other keys.
	Keys string
	// Describe makes the schemas.Table of this version from the log and the catalog as it
	// is now. It is not called when the state holds the version already: then a replay
	// must write what was written before, whatever the catalog has become.
	Describe func(ctx context.Context) (*schemas.Table, error)
}

// Route is what the pipeline made of a table version: the ids to frame keys and values
// with, and where they go. It stays valid until the Emitter's next Table call for the
// same table.
type Route struct {
	Table   *schemas.Table // the version that holds; the plan is compiled from it
	Topic   string
	KeyID   int32 // schema ids in the registry; KeyID is 0 without a key
	ValueID int32

	topic *topicRoute
}

// Change is one record to be written: a row's change, or the tombstone after a delete.
type Change struct {
	Route  *Route
	Op     byte   // c, u, d, r, t; 0 for a tombstone
	Key    []byte // framed Avro; nil: the table has no key, or Op is t
	Value  []byte // framed Avro envelope; nil for a tombstone
	NewKey []byte // JSON text of the header __debezium.newkey on the delete (and its tombstone) of a key change; else nil
	Part   bool   // the log has only a part of the new row: values that the change left alone are not in it
	OldKey []byte // JSON text of the header __debezium.oldkey on the create of a key change; else nil
}

// Emitter takes a log's changes. Its methods are called from one goroutine, in log order:
// Begin, any number of Table and Change, Commit. It keeps none of the slices it is given.
// An error from any of them ends the source's Run, which returns it as it is.
type Emitter interface {
	// Begin starts a source transaction. A transaction without changes for us may be left
	// out, if Idle tells of its place later.
	Begin(tx *Tx) error
	// Table must be called inside the transaction whose change is the first of a table
	// version, before that change. It may block on the registry and on topics.
	Table(ctx context.Context, v *TableVersion) (*Route, error)
	// Change writes one record. A TRUNCATE (Op t) is one call: the pipeline writes it to
	// each partition.
	Change(ctx context.Context, c *Change) error
	// Commit ends the transaction; end is the position after it.
	Commit(ctx context.Context, end Position) error
	// Idle says that nothing is in flight (no Begin without its Commit) and that the log
	// has been read up to p. asked: the server wants to be told now what is durable.
	Idle(ctx context.Context, p Position, asked bool) error
	// Wait must be called whenever the source is about to block for more input, with or
	// without a transaction in flight and at least once a second, so that what is complete
	// goes out; and Resume before the first call of another method after it. Neither
	// blocks.
	Wait()
	Resume()
}
