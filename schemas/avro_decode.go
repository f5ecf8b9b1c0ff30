package schemas

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrMalformed says that bytes are not what the schema says, or beyond its limits.
var ErrMalformed = errors.New("malformed avro")

// Decode decodes body, one value without a frame, into tape, which it overwrites and may
// extend; the result is described at Value. The values' Bytes are views into body. Strings
// are not checked to be UTF-8. Any error is an ErrMalformed that says at which byte.
func (s *Schema) Decode(tape []Value, body []byte) ([]Value, error) {
	d := decoder{in: body, tape: tape[:0], keep: true, limits: s.limits}
	if err := d.all(s.root); err != nil {
		return d.tape, err
	}
	return d.tape, nil
}

// Check says whether body is one value of the schema.
func (s *Schema) Check(body []byte) error {
	d := decoder{in: body, limits: s.limits}
	return d.all(s.root)
}

// EnvelopeOp returns the op of a change: body is an envelope without its frame. Only what
// stands before op is looked at.
func (s *Schema) EnvelopeOp(body []byte) (byte, error) {
	if s.op < 0 {
		return 0, errors.New("read op: the schema is not an envelope's")
	}
	if len(body) > s.limits.Bytes {
		return 0, fmt.Errorf("read op: %w: %d bytes", ErrMalformed, len(body))
	}
	d := decoder{in: body, limits: s.limits}
	for i := range s.op {
		if !d.value(s.root.Fields[i].Type, 1) {
			return 0, d.error()
		}
	}
	op, ok := d.bytes()
	if !ok {
		return 0, d.error()
	}
	if len(op) != 1 {
		return 0, fmt.Errorf("read op: %w: %d letters", ErrMalformed, len(op))
	}
	return op[0], nil
}

// decoder walks one body. Its methods return false when they fail; why says why then.
type decoder struct {
	in     []byte
	at     int
	tape   []Value
	keep   bool // values go to the tape
	count  int  // values so far
	limits Limits
	why    string
}

func (d *decoder) error() error {
	return fmt.Errorf("%w: at byte %d of %d: %s", ErrMalformed, d.at, len(d.in), d.why)
}

func (d *decoder) fail(why string) bool {
	d.why = why
	return false
}

func (d *decoder) all(root *AvroType) error {
	if len(d.in) > d.limits.Bytes {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrMalformed, len(d.in), d.limits.Bytes)
	}
	ok := d.value(root, 0)
	if ok && d.at != len(d.in) {
		ok = d.fail("bytes after the value's end")
	}
	if !ok {
		return d.error()
	}
	return nil
}

// put adds a value to the tape and returns its index.
func (d *decoder) put(v Value) int {
	if !d.keep {
		return 0
	}
	i := len(d.tape)
	v.End = i + 1
	d.tape = append(d.tape, v)
	return i
}

// value decodes one value of type t inside depth others.
func (d *decoder) value(t *AvroType, depth int) bool {
	if t.Kind == AvroUnion {
		branch, ok := d.long()
		if !ok {
			return false
		}
		if branch < 0 || branch >= int64(len(t.Branches)) {
			return d.fail("branch that the union does not have")
		}
		t = t.Branches[branch] // never a union itself
	}
	if d.count++; d.count > d.limits.Values {
		return d.fail("too many values")
	}
	switch t.Kind {
	case AvroRecord, AvroArray, AvroMap:
		return d.container(t, depth)
	case AvroBytes, AvroString, AvroFixed:
		return d.view(t)
	}
	return d.scalar(t)
}

func (d *decoder) scalar(t *AvroType) bool {
	var bits uint64
	ok := true
	switch t.Kind {
	case AvroNull:
	case AvroBoolean:
		var b []byte
		if b, ok = d.take(1); ok {
			bits = uint64(b[0])
			ok = bits <= 1 || d.fail("boolean that is neither 0 nor 1")
		}
	case AvroFloat:
		var b []byte
		if b, ok = d.take(4); ok {
			bits = math.Float64bits(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
		}
	case AvroDouble:
		var b []byte
		if b, ok = d.take(8); ok {
			bits = binary.LittleEndian.Uint64(b)
		}
	default: // int, long, enum
		var v int64
		if v, ok = d.long(); ok {
			bits = uint64(v)
			ok = d.inRange(t, v)
		}
	}
	if ok {
		d.put(Value{Type: t, bits: bits})
	}
	return ok
}

func (d *decoder) inRange(t *AvroType, v int64) bool {
	switch {
	case t.Kind == AvroInt && v != int64(int32(v)):
		return d.fail("int beyond 32 bits")
	case t.Kind == AvroEnum && (v < 0 || v >= int64(len(t.Symbols))):
		return d.fail("symbol that the enum does not have")
	}
	return true
}

func (d *decoder) view(t *AvroType) bool {
	var b []byte
	var ok bool
	if t.Kind == AvroFixed {
		b, ok = d.take(int64(t.Size))
	} else {
		b, ok = d.bytes()
	}
	if ok {
		d.put(Value{Type: t, Bytes: b})
	}
	return ok
}

// mapKey is the type of a map's keys.
var mapKey = &AvroType{Kind: AvroString}

func (d *decoder) container(t *AvroType, depth int) bool {
	if depth++; depth > d.limits.Depth {
		return d.fail("nested too deep")
	}
	i := d.put(Value{Type: t})
	var items uint64
	if t.Kind == AvroRecord {
		for f := range t.Fields {
			if !d.value(t.Fields[f].Type, depth) {
				return false
			}
		}
	} else {
		var ok bool
		if items, ok = d.blocks(t, depth); !ok {
			return false
		}
	}
	if d.keep {
		d.tape[i].End = len(d.tape)
		d.tape[i].bits = items
	}
	return true
}

// blocks decodes the items of an array or map and returns their number:
//
//	{ count | item … } 0        or, with the size of the items in bytes,
//	{ -count | size | item … } 0
func (d *decoder) blocks(t *AvroType, depth int) (items uint64, ok bool) {
	for {
		count, ok := d.long()
		if !ok || count == 0 {
			return items, ok
		}
		size := int64(-1)
		if count < 0 {
			count = -count // of the lowest long: still negative
			if size, ok = d.long(); !ok {
				return 0, false
			}
			if size < 0 {
				return 0, d.fail("block of negative size")
			}
		}
		if count < 0 || count > int64(d.limits.Values-d.count) {
			return 0, d.fail("too many items")
		}
		start := d.at
		for range count {
			if t.Kind == AvroMap && !d.view(mapKey) || !d.value(t.Items, depth) {
				return 0, false
			}
		}
		if size >= 0 && size != int64(d.at-start) {
			return 0, d.fail("block of another size than it says")
		}
		items += uint64(count)
	}
}

// long decodes a zigzag varint of at most 64 bits.
func (d *decoder) long() (int64, bool) {
	var u uint64
	for shift := uint(0); d.at < len(d.in); shift += 7 {
		b := d.in[d.at]
		if shift == 63 && b > 1 {
			return 0, d.fail("number beyond 64 bits")
		}
		d.at++
		u |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return int64(u>>1) ^ -int64(u&1), true
		}
	}
	return 0, d.fail("end in a number")
}

// bytes decodes a length and as many bytes.
func (d *decoder) bytes() ([]byte, bool) {
	n, ok := d.long()
	if !ok {
		return nil, false
	}
	return d.take(n)
}

// take returns a view of the next n bytes.
func (d *decoder) take(n int64) ([]byte, bool) {
	if n < 0 || n > int64(len(d.in)-d.at) {
		return nil, d.fail("length beyond the end")
	}
	b := d.in[d.at : d.at+int(n) : d.at+int(n)]
	d.at += int(n)
	return b, true
}
