package schemas

import "strconv"

// A change is the envelope's fields in this order: before, after, source, transaction,
// op, ts_ms, ts_us, ts_ns. Before and after are written by the source with AppendUnion
// and the column encoders, EnvelopeNull for none and EnvelopeRow before a row; the rest is
// written by SourceWriter.Append and AppendEnvelopeTail.

// Branches of the unions of before and after.
const (
	EnvelopeNull = 0
	EnvelopeRow  = 1
)

// Branches of the optional fields of the envelope and its blocks: ["null",T].
const (
	branchNull  = 0
	branchValue = 1
)

// SourceConfig is what the source block says in each record of a capture.
type SourceConfig struct {
	Version   string // of tailrace
	Connector string // as Naming.Connector
	Name      string // the topic prefix
	Database  string
}

// SourceTx is what the source block says of a transaction.
type SourceTx struct {
	ID            uint64 // PostgreSQL's 64-bit transaction id
	CommitMicros  int64  // commit time, microseconds since 1970-01-01 UTC
	LastCommitLSN uint64 // end of the commit before this one; 0: not known, null in sequence
	// Snapshot: no transaction, but rows as a snapshot has them: snapshot is true, txId
	// null, and CommitMicros the time of the snapshot.
	Snapshot bool
	// Incremental: the same for rows that were read beside the log, in chunks: snapshot is
	// incremental, CommitMicros the time of the reading transaction, and as Debezium has it
	// txId, lsn, xmin and sequence are null.
	Incremental bool
}

// SourceTable is a table's part of the source block, made once for each table.
type SourceTable []byte

// NewSourceTable returns the part of the source block that names the table.
func NewSourceTable(schema, table string) SourceTable {
	return AppendString(AppendString(nil, schema), table)
}

// SourceWriter writes the source block of PostgreSQL. What is the same for all rows, or
// all rows of a transaction, is encoded once. It is not safe for concurrent use.
type SourceWriter struct {
	start       []byte // version, connector, name
	live        []byte // snapshot (false), db, branch of sequence
	snapshot    []byte // the same with true
	incremental []byte // the same with incremental, and the branch for none

	head     []byte // start, ts_ms, snapshot: up to the length of sequence
	sequence []byte // text of sequence up to the second LSN
	times    []byte // ts_us, ts_ns
	txID     []byte
	unplaced bool // no sequence and no LSN
}

// sourceEnd: xmin, origin and origin_lsn are null.
var sourceEnd = []byte{branchNull, branchNull, branchNull}

// NewSourceWriter returns a writer. SetTransaction must be called before Append.
func NewSourceWriter(c SourceConfig) *SourceWriter {
	w := &SourceWriter{}
	w.start = AppendString(AppendString(AppendString(nil, c.Version), c.Connector), c.Name)
	middle := func(snapshot string, sequence int64) []byte {
		return AppendUnion(AppendString(AppendString(AppendUnion(nil, 0), snapshot), c.Database), sequence)
	}
	w.live, w.snapshot = middle("false", branchValue), middle("true", branchValue)
	w.incremental = middle("incremental", branchNull)
	return w
}

// SetTransaction says of which transaction the rows are that follow.
func (w *SourceWriter) SetTransaction(tx SourceTx) {
	w.head = append(w.head[:0], w.start...)
	w.head = AppendLong(w.head, floorDiv(tx.CommitMicros, 1000))
	w.unplaced = tx.Incremental
	switch {
	case tx.Incremental:
		w.head = append(w.head, w.incremental...)
	case tx.Snapshot:
		w.head = append(w.head, w.snapshot...)
	default:
		w.head = append(w.head, w.live...)
	}

	w.sequence = append(w.sequence[:0], "[null,\""...)
	if tx.LastCommitLSN != 0 {
		w.sequence = append(w.sequence[:0], "[\""...)
		w.sequence = strconv.AppendUint(w.sequence, tx.LastCommitLSN, 10)
		w.sequence = append(w.sequence, "\",\""...)
	}
	w.times = AppendLong(AppendUnion(w.times[:0], branchValue), tx.CommitMicros)
	w.times = AppendLong(AppendUnion(w.times, branchValue), tx.CommitMicros*1000)
	if tx.Snapshot || tx.Incremental {
		w.txID = AppendUnion(w.txID[:0], branchNull)
		return
	}
	w.txID = AppendLong(AppendUnion(w.txID[:0], branchValue), int64(tx.ID))
}

// Append appends the source block of a row of t that stands at lsn. Rows that were read
// beside the log stand nowhere in it.
func (w *SourceWriter) Append(dst []byte, t SourceTable, lsn uint64) []byte {
	if w.unplaced {
		dst = append(append(append(append(dst, w.head...), w.times...), t...), w.txID...)
		return append(AppendUnion(dst, branchNull), sourceEnd...)
	}
	var room [20]byte
	digits := strconv.AppendUint(room[:0], lsn, 10)
	dst = append(dst, w.head...)
	dst = AppendLong(dst, int64(len(w.sequence)+len(digits)+len(`"]`)))
	dst = append(dst, w.sequence...)
	dst = append(dst, digits...)
	dst = append(dst, `"]`...)
	dst = append(dst, w.times...)
	dst = append(dst, t...)
	dst = append(dst, w.txID...)
	dst = AppendLong(AppendUnion(dst, branchValue), int64(lsn))
	return append(dst, sourceEnd...)
}

// AppendEnvelopeTail appends what follows the source block: no transaction block, op (one
// ASCII letter) and the time of processing, in microseconds since 1970-01-01 UTC, as ts_ms,
// ts_us and ts_ns.
func AppendEnvelopeTail(dst []byte, op byte, nowMicros int64) []byte {
	dst = append(dst, branchNull, 1<<1, op)
	dst = AppendLong(AppendUnion(dst, branchValue), floorDiv(nowMicros, 1000))
	dst = AppendLong(AppendUnion(dst, branchValue), nowMicros)
	return AppendLong(AppendUnion(dst, branchValue), nowMicros*1000)
}

// CollectionCount is how many changes of a transaction are of one table.
type CollectionCount struct {
	Name  string // PostgreSQL: schema.table
	Count int64
}

// AppendTransactionKey appends a TransactionMetadataKey: the transaction's id as in Tx.
func AppendTransactionKey(dst []byte, id string) []byte { return AppendString(dst, id) }

// AppendTransactionEnd appends the TransactionMetadataValue of an END: the changes of each
// table, in the order given, and their sum; tsMillis is the commit time in milliseconds
// since 1970-01-01 UTC.
func AppendTransactionEnd(dst []byte, id string, counts []CollectionCount, tsMillis int64) []byte {
	var total int64
	for i := range counts {
		total += counts[i].Count
	}
	dst = AppendString(AppendString(dst, "END"), id)
	dst = AppendLong(AppendUnion(dst, branchValue), total)
	dst = AppendArrayStart(AppendUnion(dst, branchValue), len(counts))
	for i := range counts {
		dst = AppendString(AppendUnion(dst, branchValue), counts[i].Name)
		dst = AppendLong(dst, counts[i].Count)
	}
	return AppendLong(AppendArrayEnd(dst), tsMillis)
}
