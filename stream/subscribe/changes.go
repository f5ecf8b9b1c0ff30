package subscribe

import (
	"encoding/binary"
	"errors"

	"github.com/tailrace/tailrace/stream"
)

// What Change.Op is beside Debezium's letters c, u, d, r, t and m.
const (
	OpTombstone byte = 0   // a key without a value, after a delete
	OpEnd       byte = 'e' // the end of a source transaction
)

// A Change is one record. Its bytes are views into its batch.
type Change struct {
	Partition stream.Partition
	Offset    int64
	Timestamp int64 // of the record, milliseconds since 1970 UTC
	Mark      stream.Mark
	Op        byte
	Repeated  bool     // in a compacted topic: a record that stood before, written again
	Key       []byte   // with the frame; nil: the record has none
	Value     []byte   // with the frame; nil: a tombstone
	OldKey    []byte   // of the insert that a change of the key ends with: the key before, as JSON
	NewKey    []byte   // of the delete that a change of the key begins with: the key after, as JSON
	Table     *Table   // nil for a tombstone and for an END
	before    Position // of the partition
	End       []stream.EndPart
}

// Backfill says that the record is a row that was read, not a change.
func (c *Change) Backfill() bool { return c.Mark.Flags&stream.FlagBackfill != 0 }

// Position returns the position of the partition after the change.
func (c *Change) Position() Position {
	s := sequence{last: c.before}
	v := follows
	if c.Repeated {
		v = repeated
	}
	s.take(c.Offset, &c.Mark, v)
	return s.last
}

var errEndKey = errors.New("the key of an END record is not that of a transaction")

// TransactionID returns the source transaction's id, of an END.
func (c *Change) TransactionID() (string, error) {
	_, body, err := frameID(c.Key)
	if err != nil {
		return "", errEndKey
	}
	size, n := binary.Varint(body)
	if n <= 0 || size < 0 || size != int64(len(body)-n) {
		return "", errEndKey
	}
	return string(body[n:]), nil
}

// A Batch is changes of one partition, in order. It and the bytes of its
// changes are valid until Release, also if others are asked for meanwhile.
type Batch struct {
	Partition stream.Partition
	Changes   []Change

	room []byte // holds the bytes of the changes
	most int    // how many changes it takes
	free func(*Batch)
}

// Size returns the bytes of the batch's keys and values.
func (b *Batch) Size() int { return len(b.room) }

// Position returns the position of the partition after the batch.
func (b *Batch) Position() Position { return b.Changes[len(b.Changes)-1].Position() }

// Release gives the memory back. It may be called once, or never.
func (b *Batch) Release() {
	if free := b.free; free != nil {
		b.free = nil
		free(b)
	}
}

// full says that a record with size bytes should go to another batch.
func (b *Batch) full(size int) bool {
	return len(b.Changes) >= b.most || len(b.Changes) > 0 && len(b.room)+size > cap(b.room)
}

// copy copies p to the batch's room and returns the copy; nil stays nil.
func (b *Batch) copy(p []byte) []byte {
	if p == nil {
		return nil
	}
	start := len(b.room)
	b.room = append(b.room, p...)
	return b.room[start:len(b.room):len(b.room)]
}

// bytesPerChange says how many changes a batch takes for its bytes: small
// records must not make it large, since a Change takes some 300 bytes itself.
const bytesPerChange = 256

// reset empties the batch, for size bytes of records, or one of least bytes.
func (b *Batch) reset(size, least int) {
	clear(b.Changes)
	b.Changes = b.Changes[:0]
	if most := max(size, least); cap(b.room) < most || cap(b.room) > 2*most {
		b.room = make([]byte, 0, most)
	}
	b.room, b.most = b.room[:0], size/bytesPerChange
}

// headers are those of a record that matter here.
type headers struct {
	mark           stream.Mark
	found          bool
	rest           []byte // the parts of an END
	oldKey, newKey []byte
}

// Debezium's headers of the two halves of a key change.
const (
	headerOldKey = "__debezium.oldkey"
	headerNewKey = "__debezium.newkey"
)

// read reads them from a record.
func (h *headers) read(r *stream.Record) (err error) {
	if h.mark, h.rest, h.found, err = r.Mark(); err != nil {
		return err
	}
	h.oldKey, h.newKey = nil, nil
	if r.Headers.Len() < 2 {
		return nil
	}
	all := r.Headers
	for {
		key, value, more := all.Next()
		if !more {
			return nil
		}
		switch string(key) {
		case headerOldKey:
			h.oldKey = value
		case headerNewKey:
			h.newKey = value
		}
	}
}

// size returns how many bytes of a record are kept.
func (h *headers) size(r *stream.Record) int {
	return len(r.Key) + len(r.Value) + len(h.oldKey) + len(h.newKey)
}
