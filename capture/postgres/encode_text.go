package postgres

import (
	"encoding/hex"

	"github.com/tailrace/tailrace/schemas"
)

// encodeText is for every type whose Avro form is the database's text.
func encodeText(dst, text []byte, _ *column) ([]byte, error) {
	return schemas.AppendString(dst, text), nil
}

// encodeEnum appends a label that the column's version knows; another is errUnknownLabel.
func encodeEnum(dst, text []byte, c *column) ([]byte, error) {
	if _, ok := c.labels[string(text)]; !ok {
		return dst, errUnknownLabel
	}
	return schemas.AppendString(dst, text), nil
}

// encodeBytes appends a bytea: \x and hex digits, as bytea_output=hex has it, or the
// escape format, in which a backslash is followed by another or by three octal digits.
func encodeBytes(dst, text []byte, _ *column) ([]byte, error) {
	if len(text) < 2 || text[0] != '\\' || text[1] != 'x' {
		return encodeEscaped(dst, text)
	}
	digits := text[2:]
	n := hex.DecodedLen(len(digits))
	dst = schemas.AppendLong(dst, int64(n))
	start := len(dst)
	dst = append(dst, digits[:n]...) // makes room; overwritten below
	if _, err := hex.Decode(dst[start:], digits); err != nil {
		return dst, errNotOfType
	}
	return dst, nil
}

func encodeEscaped(dst, text []byte) ([]byte, error) {
	n := 0
	for i := 0; i < len(text); n++ {
		_, size, ok := unescapeByte(text[i:])
		if !ok {
			return dst, errNotOfType
		}
		i += size
	}
	dst = schemas.AppendLong(dst, int64(n))
	for i := 0; i < len(text); {
		b, size, _ := unescapeByte(text[i:])
		dst = append(dst, b)
		i += size
	}
	return dst, nil
}

// unescapeByte reads one byte of the escape format of bytea, of which text is not empty.
func unescapeByte(text []byte) (b byte, size int, ok bool) {
	if text[0] != '\\' {
		return text[0], 1, true
	}
	if len(text) >= 2 && text[1] == '\\' {
		return '\\', 2, true
	}
	if len(text) < 4 || text[1] > '3' || text[1] < '0' || text[2]&^7 != '0' || text[3]&^7 != '0' {
		return 0, 0, false
	}
	return (text[1]-'0')<<6 | (text[2]-'0')<<3 | (text[3] - '0'), 4, true
}
