package postgres

import (
	"bytes"
	"errors"
)

// errCopyText marks what is no row in COPY's text format.
var errCopyText = errors.New("the server's COPY is not in its text format")

// cutRow cuts the first row off text, without the newline that ends it. Inside of rows a
// newline is written as an escape, so that the first is the end.
func cutRow(text []byte) (row, rest []byte, ok bool) {
	i := bytes.IndexByte(text, '\n')
	if i < 0 {
		return nil, text, false
	}
	return text[:i], text[i+1:], true
}

// splitCopy splits one row of COPY's text format into fields, one for each column, which
// are places in row. Escapes are resolved in place, so row is changed.
//
//	values are separated by a tab; NULL is \N alone
//	\b \f \n \r \t \v \\ stand for one byte each
//
// Source: PostgreSQL's documentation of COPY, "Text Format". The octal and hexadecimal
// escapes, which only COPY FROM knows, are errors.
func splitCopy(row []byte, fields []field) error {
	if len(fields) == 0 {
		if len(row) > 0 {
			return errCopyText
		}
		return nil
	}
	at := 0
	for i := range fields {
		end := len(row)
		if n := bytes.IndexByte(row[at:], '\t'); n >= 0 {
			end = at + n
		} else if i < len(fields)-1 {
			return errCopyText
		}
		if i == len(fields)-1 && end != len(row) {
			return errCopyText
		}
		f, err := resolve(row, at, end)
		if err != nil {
			return err
		}
		fields[i] = f
		at = end + 1
	}
	return nil
}

// resolve makes a field of the value row[at:end].
func resolve(row []byte, at, end int) (field, error) {
	value := row[at:end]
	n := bytes.IndexByte(value, '\\')
	if n < 0 {
		return field{int32(at), int32(end)}, nil
	}
	if string(value) == `\N` {
		return field{fieldNull, fieldNull}, nil
	}
	to := n
	for n < len(value) {
		c := value[n]
		n++
		if c == '\\' {
			if n == len(value) {
				return field{}, errCopyText
			}
			if c = unescaped[value[n]]; c == 0 {
				return field{}, errCopyText
			}
			n++
		}
		value[to] = c
		to++
	}
	return field{int32(at), int32(at + to)}, nil
}

// unescaped has the byte that an escape stands for, by the byte after the backslash; 0 for
// what is none.
var unescaped = [256]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v', '\\': '\\'}
