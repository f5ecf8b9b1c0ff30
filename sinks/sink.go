package sinks

import (
	"context"

	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// What a sink is given is what stream/subscribe reads; these names spare a sink the import.
type (
	Partition = stream.Partition
	Position  = subscribe.Position
	Place     = stream.Place
	Change    = subscribe.Change
	Table     = subscribe.Table
	Column    = subscribe.Column
	Rows      = subscribe.Rows
	Row       = subscribe.Row
	Value     = subscribe.Value
	State     = subscribe.State
)

// The states of a column's value. Unchanged is a value that the source did not log because
// it was not touched: what the target has stays.
const (
	Set       = subscribe.Set
	Null      = subscribe.Null
	Unchanged = subscribe.Unchanged
)

// Operations of a Change.
const (
	OpTombstone byte = 0
	OpCreate    byte = 'c'
	OpUpdate    byte = 'u'
	OpDelete    byte = 'd'
	OpRead      byte = 'r' // a row that was read: a snapshot's or a backfill's
	OpTruncate  byte = 't'
	OpMessage   byte = 'm'
)

// Sink is one target. Its methods are called from one goroutine; a Sink serves one run,
// and after an error of Apply only Close is called, unless the batch is Divisible and the
// error is about a row.
type Sink interface {
	// Take makes this run the owner of the partitions: it raises the fence that the
	// target keeps for each, so that whatever an earlier owner still tries writes nothing,
	// and returns the positions that the target has. A partition that the target does not
	// know is absent or zero. It is called again when partitions come to be, with all.
	Take(ctx context.Context, ps []Partition) (map[Partition]Position, error)
	// Apply makes b and its positions durable at once, or nothing of both. It keeps
	// nothing of b. If the fence was raised since Take, it writes nothing and returns
	// ErrFenced. To a target without transactions a part of b may have gone when it fails;
	// the positions have not moved then, and the same changes come again.
	Apply(ctx context.Context, b *Batch) error
	// Close gives up connections. What was not made durable is undone.
	Close() error
}

// Batch is what one Apply takes: whole source transactions, in the log's order; without
// them (mode Keys) the changes of a partition are in the partition's order.
type Batch struct {
	Changes   []*Change
	Positions map[Partition]Position // what holds once b is durable, of the partitions it moves
	// More says that the last source transaction of b is not complete: nothing of b may be
	// visible before the rest, which comes with the next batches, is durable too.
	More bool
	// Divisible says that the caller goes on if the target refuses a row. If Apply fails
	// because of a row, it leaves nothing of b, returns a *Refused or, if it cannot name the
	// row, an error with a method OfRow() bool that is true, and is called again: with parts
	// of b. So it need not find the row at any cost.
	Divisible bool
	// Schema returns the text of a schema of the registry, by its id; what was asked for
	// once costs nothing. Nil: nobody can tell.
	Schema func(ctx context.Context, id int32) (string, error)
}
