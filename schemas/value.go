package schemas

import "math"

// A decoded value lies in a tape: a []Value in which each value is followed by what is in
// it, a record by its fields in the schema's order, an array by its items, a map by its
// keys and values in turn. The first is the whole. The children of the value at i begin at
// i+1; the sibling of the value at i is at its End, as is the end of the last child.
//
//	{"id":7,"tags":["a","b"]}
//	index  0        1     2       3     4
//	       record   7     array   "a"   "b"
//	End    5        2     5       4     5

// Value is one value in a tape. A union leaves no trace but the branch that was chosen.
type Value struct {
	Type  *AvroType
	Bytes []byte // of bytes, string, fixed: a view into the decoded body
	End   int    // index in the tape after this value and what is in it
	bits  uint64
}

// Int returns an int or a long; of a boolean 0 or 1, of an enum its symbol's index, of an
// array or map the number of its items.
func (v *Value) Int() int64 { return int64(v.bits) }

// Bool returns a boolean.
func (v *Value) Bool() bool { return v.bits != 0 }

// Float returns a float or a double.
func (v *Value) Float() float64 { return math.Float64frombits(v.bits) }

// Symbol returns an enum's symbol.
func (v *Value) Symbol() string { return v.Type.Symbols[v.bits] }

// IsNull says whether the value is null.
func (v *Value) IsNull() bool { return v.Type.Kind == AvroNull }

// FieldAt returns the index of the n-th field of the record at i.
func FieldAt(tape []Value, i, n int) int {
	for i++; n > 0; n-- {
		i = tape[i].End
	}
	return i
}

// FieldNamed returns the index of a field of the record at i, or -1.
func FieldNamed(tape []Value, i int, name string) int {
	n := tape[i].Type.Field(name)
	if n < 0 {
		return -1
	}
	return FieldAt(tape, i, n)
}
