package postgres

import (
	"errors"
	"strconv"
	"unsafe"

	"github.com/tailrace/tailrace/schemas"
)

// An encoder appends a value that pgoutput sent as text to dst as Avro, without the branch
// of a union. text is PostgreSQL's output for the type, in the session that connect sets
// up. On an error what was appended is of no use.
type encoder func(dst, text []byte, c *column) ([]byte, error)

// errNotOfType says that a text is none that PostgreSQL writes for the column's type.
var errNotOfType = errors.New("the text in the log is no value of the column's type")

func encodeBool(dst, text []byte, _ *column) ([]byte, error) {
	if len(text) != 1 || text[0] != 't' && text[0] != 'f' {
		return dst, errNotOfType
	}
	return schemas.AppendBool(dst, text[0] == 't'), nil
}

func encodeInt16(dst, text []byte, _ *column) ([]byte, error) {
	v, ok := parseInt(text)
	if !ok || v != int64(int16(v)) {
		return dst, errNotOfType
	}
	return schemas.AppendLong(dst, v), nil
}

func encodeInt32(dst, text []byte, _ *column) ([]byte, error) {
	v, ok := parseInt(text)
	if !ok || v != int64(int32(v)) {
		return dst, errNotOfType
	}
	return schemas.AppendLong(dst, v), nil
}

func encodeInt64(dst, text []byte, _ *column) ([]byte, error) {
	v, ok := parseInt(text)
	if !ok {
		return dst, errNotOfType
	}
	return schemas.AppendLong(dst, v), nil
}

// parseInt reads a decimal integer of 64 bits.
func parseInt(text []byte) (v int64, ok bool) {
	digits := text
	if len(text) > 0 && text[0] == '-' {
		digits = text[1:]
	}
	if len(digits) == 0 || len(digits) > 18 {
		return parseLongInt(text)
	}
	for _, c := range digits {
		d := c - '0'
		if d > 9 {
			return 0, false
		}
		v = v*10 + int64(d)
	}
	if len(digits) != len(text) {
		v = -v
	}
	return v, true
}

func parseLongInt(text []byte) (int64, bool) {
	v, err := strconv.ParseInt(string(text), 10, 64)
	return v, err == nil && text[0] != '+'
}

func encodeFloat32(dst, text []byte, _ *column) ([]byte, error) {
	v, err := strconv.ParseFloat(view(text), 32)
	if err != nil {
		return dst, errNotOfType
	}
	return schemas.AppendFloat(dst, float32(v)), nil
}

func encodeFloat64(dst, text []byte, _ *column) ([]byte, error) {
	v, err := strconv.ParseFloat(view(text), 64)
	if err != nil {
		return dst, errNotOfType
	}
	return schemas.AppendDouble(dst, v), nil
}

// view returns b as a string without a copy; it is as long-lived as b's bytes are.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func encodeDecimal(dst, text []byte, c *column) ([]byte, error) {
	return schemas.AppendDecimal(dst, text, c.typ.Scale)
}

func encodeVarDecimal(dst, text []byte, _ *column) ([]byte, error) {
	return schemas.AppendVarDecimal(dst, text)
}
