package capture

import (
	"context"
	"time"

	"github.com/tailrace/tailrace/capture/backfill"
)

// Chunker reads tables in parts, in the order of their keys, beside the tailing of the log.
// It writes nothing to the database, holds no lock but what a SELECT holds, and no
// transaction longer than one Read. Its methods may be called from several goroutines at
// once; each call has a connection to itself.
//
// An error that is fatal (IsFatal) ends the backfill it is about; after any other the call is
// made again.
type Chunker interface {
	// Running returns the XIDs of transactions in progress of which the log may have shown
	// the commit before Running was called; none where a commit is visible before the log
	// shows it.
	Running(ctx context.Context) (xids []uint64, err error)
	// Plan looks at a table before its first chunk is read. Its errors say what is wrong with
	// the request: no such table, no key, a key without an order, no privilege, a predicate
	// that is none.
	Plan(ctx context.Context, r *ChunkTable) (*ChunkPlan, error)
	// Read reads one chunk into c, whose Rows are empty, with one statement: the first
	// r.Limit rows of r.Range. It asks r.Route under what ids to write rows, with no
	// transaction open, when the table is not as it was at the Read before.
	Read(ctx context.Context, r *ChunkRead, c *backfill.Chunk) (*ChunkVersion, error)
	// Close gives up connections.
	Close() error
}

// ChunkTable says which rows of which table a backfill is of.
type ChunkTable struct {
	Namespace, Name string
	Where           string // condition in the database's language; "": none
	backfill.Range         // keys as an operator has written them; nil: no bound
	// Added: the table has come to the log just now. What changed it and is not in the log
	// for that reason must have become visible before Plan returns.
	Added bool
	// Ranges is into how many ranges of about the same size the table is to be split.
	Ranges int
}

// ChunkPlan is how a table is going to be read.
type ChunkPlan struct {
	Identity string // which table it is, should another get its name (PostgreSQL: the oid)
	Key      []string
	Ranges   []backfill.Range // one after the other they are what was asked for
	Estimate int64            // rows of the table, as the database has them; 0: not known
}

// ChunkRead asks for one chunk.
type ChunkRead struct {
	Table    *ChunkTable
	Plan     *ChunkPlan
	Range    backfill.Range
	Limit    int // rows at most
	MaxBytes int // of records, after which no more rows are read
	// Route returns under what ids rows of a version are to be written. It may block.
	Route func(ctx context.Context, v *TableVersion) (*Route, error)
}

// ChunkVersion is the version of the table under which a chunk's rows are written.
type ChunkVersion struct {
	Route *Route
	Log   string        // TableVersion.Log
	Took  time.Duration // how long the database's transaction was open
}

// CapturedTable is a table whose changes are in the log.
type CapturedTable struct {
	Namespace, Name string
	Identity        string // as ChunkPlan.Identity
	Keyed           bool   // it has a key that is written as it is, so that it can be read in chunks
}
