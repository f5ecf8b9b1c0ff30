package backfill

// Commit names a commit of the log as seen-sets ask for it.
type Commit struct {
	File, Pos uint64 // its place: number of the log file (0 for PostgreSQL), and where it stands in it
	XID       uint64 // PostgreSQL: the transaction id as the log has it, 32 bits; 0: none
}

// Seen is the set of commits that a statement has certainly seen. It may lack some that the
// statement saw, never the other way round.
type Seen interface {
	Has(c *Commit) bool
}

// Place is a place in the log, ordered by (File, Offset).
type Place struct {
	File   uint64 `json:"file,omitempty"`
	Offset uint64 `json:"offset"`
}

// Reaches says whether a log that has been read up to p has been read up to end.
func (p Place) Reaches(end Place) bool {
	return p.File > end.File || p.File == end.File && p.Offset >= end.Offset
}

// Chunk is a part of a table in key order, as one statement saw it.
type Chunk struct {
	Rows *Rows
	Seen Seen
	// End is the log's end, read after the statement: what it saw ends at or before it.
	End Place
	// Last is the key of the last row, one text for each key column, as the database writes
	// and reads it; nil if there was no row.
	Last []string
	// Whole says that there is nothing more in the range that was asked for.
	Whole bool
}

// Written says whether the chunk's rows may be written once the log has been read up to
// read: then every commit that the statement saw has been written before them.
func (c *Chunk) Written(read Place) bool { return read.Reaches(c.End) }
