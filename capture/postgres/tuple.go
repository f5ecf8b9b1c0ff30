package postgres

import (
	"encoding/binary"
	"fmt"
)

// field is one column's value in a row message: where its text stands.
type field struct {
	start, end int32 // start is fieldNull or fieldUnchanged for a value without text
}

const (
	fieldNull      = -1
	fieldUnchanged = -2 // a TOASTed value that the UPDATE did not touch; it is not in the log
)

// walkTuple splits a TupleData that begins at m[at] into fields, one for each column, and
// returns where it ends. Nothing is copied: fields are places in m.
//
//	Int16 number of columns, then for each column
//	Byte  'n' NULL · 'u' unchanged TOASTed value · 't' text:
//	      Int32 length, then as many bytes
//
// Source: PostgreSQL's documentation, "Logical Replication Message Formats". Values in
// binary form ('b') are never asked for.
func walkTuple(m []byte, at int, fields []field) (end int, err error) {
	if at < 0 || len(m)-at < 2 {
		return 0, errTruncated
	}
	if n := int(binary.BigEndian.Uint16(m[at:])); n != len(fields) {
		return 0, fmt.Errorf("the row has %d columns, its table's description %d", n, len(fields))
	}
	at += 2
	for i := range fields {
		if at >= len(m) {
			return 0, errTruncated
		}
		kind := m[at]
		at++
		if kind == 't' {
			if len(m)-at < 4 {
				return 0, errTruncated
			}
			n := int(int32(binary.BigEndian.Uint32(m[at:])))
			at += 4
			if n < 0 || n > len(m)-at {
				return 0, errTruncated
			}
			fields[i] = field{int32(at), int32(at + n)}
			at += n
			continue
		}
		switch kind {
		case 'n':
			fields[i] = field{fieldNull, fieldNull}
		case 'u':
			fields[i] = field{fieldUnchanged, fieldUnchanged}
		default:
			return 0, fmt.Errorf("column %d is of unknown kind %q", i+1, kind)
		}
	}
	return at, nil
}

// readRow is the op of a rowMessage that no message of the log is: a row that was read.
const readRow = 'r'

// rowMessage is an Insert, Update or Delete in its parts, or a row that was read.
type rowMessage struct {
	op     byte // 'I', 'U', 'D', or readRow
	bytes  []byte
	oldTag byte    // 'K': old holds the key's columns; 'O': the whole row; 0: there is none
	old    []field // of the row before
	new    []field // of the row after; not for a Delete
}

// split walks an Insert, Update or Delete without its relation id, which is m[1:5]:
//
//	'I' Int32 'N' TupleData
//	'U' Int32 ['K' or 'O' TupleData] 'N' TupleData
//	'D' Int32 'K' or 'O' TupleData
//
// r.old and r.new must have one element for each column of the relation.
func (r *rowMessage) split(m []byte) (err error) {
	r.op, r.bytes, r.oldTag = 0, m, 0
	at := rowHeader
	if len(m) <= at {
		return errTruncated
	}
	r.op = m[0]
	if r.op != 'I' && (m[at] == 'K' || m[at] == 'O') {
		r.oldTag = m[at]
		if at, err = walkTuple(m, at+1, r.old); err != nil {
			return fmt.Errorf("old row: %w", err)
		}
	}
	if r.op != 'D' {
		if len(m) <= at || m[at] != 'N' {
			return errNoNewRow
		}
		if at, err = walkTuple(m, at+1, r.new); err != nil {
			return err
		}
	} else if r.oldTag == 0 {
		return errNoOldRow
	}
	if at != len(m) {
		return fmt.Errorf("%d bytes are left over", len(m)-at)
	}
	return nil
}

// rowHeader is the length of what stands before the first tuple: type and relation id.
const rowHeader = 5
