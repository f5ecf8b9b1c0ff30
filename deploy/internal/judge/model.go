package judge

import "fmt"

// Operations of a record, as the envelope names them. A tombstone has none there.
const (
	Create    = 'c'
	Update    = 'u'
	Delete    = 'd'
	Tombstone = 't'
	Read      = 'r' // a row as a backfill has read it
)

// Outcome is what a writer knows of a transaction.
type Outcome string

// A transaction that is OK was acknowledged; one that Failed was rolled back; of one that
// is Unknown the writer lost the answer.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown"
)

// Transaction is one source transaction as its writer logged it.
type Transaction struct {
	ID      uint64   `json:"xid"`
	Outcome Outcome  `json:"outcome"`
	Changes []Change `json:"changes"` // in the order of the statements
}

// Change is one row's change. Ver counts the changes of one key, over deletions too, so
// that a key's changes have one right order. A key change says the old key and its last
// version in Key and Ver, the new one in NewKey and NewVer.
type Change struct {
	Topic  string `json:"t"`
	Op     string `json:"op"` // insert, update, delete, rekey
	Key    string `json:"k,omitempty"`
	Ver    int64  `json:"v"`
	NewKey string `json:"nk,omitempty"`
	NewVer int64  `json:"nv,omitempty"`
}

// wanted is a record that a change must have become. Ver counts for creates and updates
// only: deletes do not carry the row's columns.
type wanted struct {
	topic string
	op    byte
	key   string
	ver   int64
}

func (w wanted) String() string {
	return fmt.Sprintf("%s of %s %q version %d", opName(w.op), w.topic, w.key, w.ver)
}

func opName(op byte) string {
	switch op {
	case Create:
		return "create"
	case Update:
		return "update"
	case Delete:
		return "delete"
	case Tombstone:
		return "tombstone"
	case Read:
		return "read"
	}
	return fmt.Sprintf("operation %q", op)
}

// records lists what c must become, in order.
func (c *Change) records() []wanted {
	switch c.Op {
	case "insert":
		return []wanted{{c.Topic, Create, c.Key, c.Ver}}
	case "update":
		return []wanted{{c.Topic, Update, c.Key, c.Ver}}
	case "delete":
		return []wanted{{c.Topic, Delete, c.Key, 0}, {c.Topic, Tombstone, c.Key, 0}}
	case "rekey":
		return []wanted{{c.Topic, Delete, c.Key, 0}, {c.Topic, Tombstone, c.Key, 0}, {c.Topic, Create, c.NewKey, c.NewVer}}
	}
	panic("a writer logged the unknown operation " + c.Op)
}

// Record is one record of a topic as the reader found it.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64

	Foreign bool // it carries no header `tailrace`, or one that cannot be read
	Mark    Mark
	Time    int64 // milliseconds

	Op     byte   // Create …; 0 for an END record
	Key    string // as the writers write it; "" without a key
	Ver    int64  // of the row after the change; 0 for deletes and tombstones
	XID    uint64 // of the source transaction; 0 for a tombstone, which does not say
	Fault  string // what is wrong with the record's content by itself; "" if nothing is
	Counts End    // of END records

	Content string // of the row after the change: its columns but the note, as Row has it
	Note    uint64 // stands for the text of the column note; 0: none, or NoteUnavailable

	Backfill string // of a backfill's END records: which, and the row of the commit after which
	From     uint64 // the chunk begins
}

// Mark is the content of the header `tailrace`.
type Mark struct {
	Epoch, File, Order, Row, N uint64
	Backfill, Rebased, IsEnd   bool
	Parts                      []Part // of END records
}

// Part says which row was a source transaction's last in a partition.
type Part struct {
	Topic     string
	Partition int32
	Row       uint64
}

// End is what the value of an END record says.
type End struct {
	Events      int64            // of the transaction, tombstones aside
	Collections map[string]int64 // the same by topic
}

// place says where in the log a record comes from.
type place struct{ epoch, file, order, row uint64 }

func (m *Mark) place() place { return place{m.Epoch, m.File, m.Order, m.Row} }

// less orders places; the row counts last.
func (p place) less(q place) bool {
	switch {
	case p.epoch != q.epoch:
		return p.epoch < q.epoch
	case p.file != q.file:
		return p.file < q.file
	case p.order != q.order:
		return p.order < q.order
	}
	return p.row < q.row
}

// commit is the place without its row: one source transaction.
func (p place) commit() place { p.row = 0; return p }
