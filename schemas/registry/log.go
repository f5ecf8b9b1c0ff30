package registry

import (
	"context"
)

// Entry is one record of the `_schemas` log.
type Entry struct {
	Key, Value []byte // JSON; nil Value: a tombstone, which deletes the key
}

// Log is where a Server keeps its schemas: one ordered, durable sequence of entries which
// may lose entries that a later one of the same key has replaced (compaction). The server
// calls one method at a time.
type Log interface {
	// Fence makes the caller the only writer: when it returns, no Append of an earlier
	// writer can take effect any more. It is called once, before the first Read.
	Fence(ctx context.Context) error
	// Append writes entries; when it returns nil they are durable and stand in the log in
	// this order. ErrFenced (errors.Is): another writer has fenced this one, and nothing
	// was written. ErrTooLarge: the same, for the size of an entry. After any other error
	// entries may be in the log or not, all or some; but once a later Read has returned,
	// those that it did not show never will be.
	// Append must not take the log back from a writer that has fenced this one.
	Append(ctx context.Context, entries []Entry) error
	// Read calls fn with each committed entry at an offset of at least from, up to the end
	// of the log as it was when Read was called, in order. It returns the offset after the
	// last one, which is from if there was none. fn must not keep the slices. An error of
	// fn ends Read and is returned. ErrFenced may be returned here too, where it is only
	// now found out.
	Read(ctx context.Context, from int64, fn func(offset int64, e Entry) error) (next int64, err error)
}
