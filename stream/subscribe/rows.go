package subscribe

import (
	"errors"
	"fmt"

	"github.com/tailrace/tailrace/schemas"
)

// Rows decodes changes, one at a time, into memory that it uses again: once
// warmed it allocates nothing. What it returns are views, valid until the next
// Decode and as long as the change's bytes. The zero value is ready. It is not
// safe for concurrent use.
type Rows struct {
	table  *Table
	tape   []schemas.Value
	source int // where the source block is; 0: none
	op     byte
	micros int64
	before layout
	after  layout

	keyTape []schemas.Value
	key     layout
}

// A layout says where in a tape a row's columns are.
type layout struct {
	columns []int
	present bool
}

// read notes the fields of the record at i.
func (l *layout) read(tape []schemas.Value, i int) {
	l.columns = l.columns[:0]
	l.present = tape[i].Type.Kind == schemas.AvroRecord
	if !l.present {
		return
	}
	for at, end := i+1, tape[i].End; at < end; at = tape[at].End {
		l.columns = append(l.columns, at)
	}
}

// Decode decodes the change's value, which must be one of a table: not a
// tombstone, and not an END. Any error is about the change's bytes.
func (r *Rows) Decode(c *Change) error {
	r.table = nil
	if c.Table == nil {
		return fmt.Errorf("decode change at offset %d of %s/%d: it has no row", c.Offset, c.Partition.Topic, c.Partition.Number)
	}
	tape, err := c.Table.value.Decode(r.tape, c.Value[schemas.FrameSize:])
	r.tape = tape
	if err != nil {
		return fmt.Errorf("decode change at offset %d of %s/%d: %w", c.Offset, c.Partition.Topic, c.Partition.Number, err)
	}
	r.table = c.Table
	f := &c.Table.fields
	r.op, r.micros = c.Op, 0
	at := 1
	for i := 0; at < tape[0].End; i++ {
		switch i {
		case f.before:
			r.before.read(tape, at)
		case f.after:
			r.after.read(tape, at)
		case f.source:
			r.source = at
		case f.tsMicros:
			r.micros = tape[at].Int()
		}
		at = tape[at].End
	}
	return nil
}

// Table returns the table of the change.
func (r *Rows) Table() *Table { return r.table }

// Before returns the row as it was; not present if the change does not say.
func (r *Rows) Before() Row { return Row{r.table, r.tape, &r.before, nil} }

// After returns the row as it is; not present in deletes and truncates.
func (r *Rows) After() Row { return Row{r.table, r.tape, &r.after, nil} }

// ProcessedMicros returns when the capture wrote the change, in microseconds
// since 1970 UTC; 0 if it does not say.
func (r *Rows) ProcessedMicros() int64 { return r.micros }

// CommittedMicros returns when the database committed it, in microseconds since
// 1970 UTC; of older writers, only to the millisecond.
func (r *Rows) CommittedMicros() int64 {
	if v := r.sourceField(r.table.fields.sourceMicros); v != nil && !v.IsNull() {
		return v.Int()
	}
	if v := r.sourceField(r.table.fields.sourceMillis); v != nil {
		return v.Int() * 1000
	}
	return 0
}

// SourceSchema returns the name of the table's schema in the database; nil if
// the source has none.
func (r *Rows) SourceSchema() []byte { return r.sourceBytes(r.table.fields.schema) }

// SourceTable returns the table's name in the database.
func (r *Rows) SourceTable() []byte { return r.sourceBytes(r.table.fields.table) }

// SourceFields calls fn with each field of the source block that is not null, in the
// schema's order, until fn returns false.
func (r *Rows) SourceFields(fn func(name string, v Value) bool) {
	fields := r.tape[r.source].Type.Fields
	for i, at := 0, r.source+1; at < r.tape[r.source].End; i, at = i+1, r.tape[at].End {
		if !r.tape[at].IsNull() && !fn(fields[i].Name, Value{tape: r.tape, at: at, state: Set}) {
			return
		}
	}
}

// TransactionNumber returns the transaction's id in the database; 0: not known.
func (r *Rows) TransactionNumber() uint64 { return r.sourceNumber(r.table.fields.txID) }

// LSN returns where in PostgreSQL's log the change stands; 0: not known.
func (r *Rows) LSN() uint64 { return r.sourceNumber(r.table.fields.lsn) }

func (r *Rows) sourceField(field int) *schemas.Value {
	if field < 0 {
		return nil
	}
	return &r.tape[schemas.FieldAt(r.tape, r.source, field)]
}

func (r *Rows) sourceBytes(field int) []byte {
	if v := r.sourceField(field); v != nil {
		return v.Bytes
	}
	return nil
}

func (r *Rows) sourceNumber(field int) uint64 {
	if v := r.sourceField(field); v != nil && !v.IsNull() {
		return uint64(v.Int())
	}
	return 0
}

var errNoKey = errors.New("the record has no key")

// Key decodes the change's key. The row has the columns of the key, in its
// order: Column(i) is the table's column Table.Key[i]. It is valid until the
// next Key. It need not be preceded by Decode, but the change must have a
// Table: for a tombstone use KeyOf.
func (r *Rows) Key(c *Change) (Row, error) {
	if c.Table == nil {
		return Row{}, fmt.Errorf("decode key at offset %d of %s/%d: the record has no row", c.Offset, c.Partition.Topic, c.Partition.Number)
	}
	return r.KeyOf(c.Table, c)
}

// KeyOf is Key with the table given; its KeyID must be that of the key.
func (r *Rows) KeyOf(t *Table, c *Change) (Row, error) {
	fail := func(err error) (Row, error) {
		return Row{}, fmt.Errorf("decode key at offset %d of %s/%d: %w", c.Offset, c.Partition.Topic, c.Partition.Number, err)
	}
	if c.Key == nil || t.key == nil {
		return fail(errNoKey)
	}
	id, body, err := frameID(c.Key)
	if err != nil {
		return fail(err)
	}
	if id != t.KeyID {
		return fail(fmt.Errorf("its schema is %d, not %d", id, t.KeyID))
	}
	if r.keyTape, err = t.key.Decode(r.keyTape, body); err != nil {
		return fail(err)
	}
	r.key.read(r.keyTape, 0)
	return Row{t, r.keyTape, &r.key, t.Key}, nil
}

// A Row is a view of a row, or of a key.
type Row struct {
	table  *Table
	tape   []schemas.Value
	layout *layout
	key    []int // of a key: which columns of the table it has
}

// Present says whether there is a row.
func (w Row) Present() bool { return w.layout != nil && w.layout.present }

// Len returns the number of columns; 0 if there is no row.
func (w Row) Len() int {
	if w.layout == nil {
		return 0
	}
	return len(w.layout.columns)
}

// Column returns the i-th value of the row.
func (w Row) Column(i int) Value {
	at := w.layout.columns[i]
	v := Value{tape: w.tape, at: at, state: Set}
	if w.tape[at].Type.Kind == schemas.AvroNull {
		v.state = Null
		return v
	}
	if w.key != nil {
		return v
	}
	if marker := w.table.Columns[i].marker; marker != nil && marker(w.tape, at) {
		v.state = Unchanged
	}
	return v
}

// State says what a value is.
type State uint8

// The states of a value.
const (
	Unset     State = iota // the row says nothing of it
	Null                   // SQL NULL
	Set                    // it has a value
	Unchanged              // an UPDATE did not touch it, and the log does not hold it: it is what it was
)

// String returns the state's name.
func (s State) String() string { return [...]string{"unset", "null", "set", "unchanged"}[s] }

// A Value is a view of one column's value, or of an item in it.
type Value struct {
	tape  []schemas.Value
	at    int
	state State
}

// State says whether there is a value. The methods below are for those that
// are Set.
func (v Value) State() State { return v.state }

// Kind is the Avro kind of the value.
func (v Value) Kind() schemas.AvroKind { return v.tape[v.at].Type.Kind }

// Type is the Avro type of the value.
func (v Value) Type() *schemas.AvroType { return v.tape[v.at].Type }

// Int returns an int or a long.
func (v Value) Int() int64 { return v.tape[v.at].Int() }

// Float returns a float or a double.
func (v Value) Float() float64 { return v.tape[v.at].Float() }

// Bool returns a boolean.
func (v Value) Bool() bool { return v.tape[v.at].Bool() }

// Bytes returns a string, bytes, or a decimal's big-endian two's complement.
func (v Value) Bytes() []byte { return v.tape[v.at].Bytes }

// Len returns the number of an array's items.
func (v Value) Len() int { return int(v.tape[v.at].Int()) }

// Inner returns the first value inside an array or record; ok is false if
// there is none. Next goes on from it.
func (v Value) Inner() (inner Value, ok bool) {
	if v.tape[v.at].End == v.at+1 {
		return Value{}, false
	}
	return v.item(v.at + 1), true
}

// Next returns the value after v inside outer; ok is false if v is the last.
func (v Value) Next(outer Value) (next Value, ok bool) {
	at := v.tape[v.at].End
	if at >= outer.tape[outer.at].End {
		return Value{}, false
	}
	return v.item(at), true
}

func (v Value) item(at int) Value {
	item := Value{tape: v.tape, at: at, state: Set}
	if v.tape[at].Type.Kind == schemas.AvroNull {
		item.state = Null
	}
	return item
}
