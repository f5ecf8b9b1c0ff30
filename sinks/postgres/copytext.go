package postgres

import (
	"bytes"
	"errors"
	"math"
	"strconv"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
)

// COPY's text format, as PostgreSQL's manual on COPY gives it:
//
//	line:  field TAB field … NEWLINE
//	field: \N for null, else text in which backslash, tab, newline and carriage return
//	       are written as \\ \t \n \r
//
// unchangedField is ours and never sent: a column of which the source did not log the value.
// No field can look like it, as a backslash in a text is always doubled.
var (
	nullField      = []byte(`\N`)
	unchangedField = []byte(`\U`)
)

var errNUL = errors.New("a text has a character 0, which PostgreSQL cannot hold")

// needsEscape marks the bytes that a field cannot have as they are.
var needsEscape = [256]byte{'\\': '\\', '\t': 't', '\n': 'n', '\r': 'r', 0: '0'}

// appendEscaped appends text as a part of a field.
func appendEscaped[T ~string | ~[]byte](dst []byte, text T) ([]byte, error) {
	from := 0
	for i := 0; i < len(text); i++ {
		e := needsEscape[text[i]]
		if e == 0 {
			continue
		}
		if e == '0' {
			return dst, errNUL
		}
		dst = append(append(dst, text[from:i]...), '\\', e)
		from = i + 1
	}
	return append(dst, text[from:]...), nil
}

// unescape returns what a field says; nil: null. Without a backslash in it, it is the
// field itself.
func unescape(field []byte) []byte {
	i := bytes.IndexByte(field, '\\')
	if i < 0 {
		return field
	}
	if bytes.Equal(field, nullField) {
		return nil
	}
	out := append(make([]byte, 0, len(field)), field[:i]...)
	for ; i < len(field); i++ {
		if field[i] != '\\' {
			out = append(out, field[i])
			continue
		}
		i++
		switch field[i] {
		case 't':
			out = append(out, '\t')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		default:
			out = append(out, field[i])
		}
	}
	return out
}

// nextField splits off a line's first field; line is without its newline.
func nextField(line []byte) (field, rest []byte) {
	if i := bytes.IndexByte(line, '\t'); i >= 0 {
		return line[:i], line[i+1:]
	}
	return line, nil
}

// encoder appends a value that is set to dst as a field. scratch is the caller's, for
// values that must be written before they can be escaped.
type encoder func(dst []byte, scratch *[]byte, v sinks.Value, c *sinks.Column) ([]byte, error)

// encoderOf chooses how a column's values are written for a target column of a type that
// is called as format_type calls it.
func encoderOf(c *sinks.Column, target string) encoder {
	switch c.Type.Kind {
	case schemas.Bool:
		return encodeBool
	case schemas.Int16, schemas.Int32, schemas.Int64:
		return encodeInt
	case schemas.Interval:
		if target == "interval" {
			return encodeInterval
		}
		return encodeInt
	case schemas.Float32:
		return encodeFloat32
	case schemas.Float64:
		return encodeFloat64
	case schemas.String, schemas.UUID, schemas.JSON, schemas.XML, schemas.Enum, schemas.ZonedTime:
		return encodeString
	case schemas.Bytes:
		return encodeBytes
	case schemas.Array:
		return encodeArray
	case schemas.Invalid:
		return encodePlain
	case schemas.ZonedTimestamp:
		return encodeInstant
	}
	return encodeText // numerics, dates and times: nothing in them needs an escape
}

func encodeBool(dst []byte, _ *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	if v.Bool() {
		return append(dst, 't'), nil
	}
	return append(dst, 'f'), nil
}

func encodeInt(dst []byte, _ *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	return strconv.AppendInt(dst, v.Int(), 10), nil
}

func encodeFloat32(dst []byte, _ *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	return appendFloat(dst, v.Float(), 32), nil
}

func encodeFloat64(dst []byte, _ *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	return appendFloat(dst, v.Float(), 64), nil
}

func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, bits)
}

func encodeString(dst []byte, _ *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	return appendEscaped(dst, v.Bytes())
}

func encodeText(dst []byte, _ *[]byte, v sinks.Value, c *sinks.Column) ([]byte, error) {
	return appendText(dst, v, &c.Type)
}

func encodeInstant(dst []byte, _ *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	return appendYearZero(dst, v.Bytes())
}

func encodeBytes(dst []byte, _ *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	return appendHex(dst, v.Bytes(), true), nil
}

// encodeArray writes an array's own text first, then escapes that.
func encodeArray(dst []byte, scratch *[]byte, v sinks.Value, c *sinks.Column) ([]byte, error) {
	text, err := appendArray((*scratch)[:0], v, &c.Type)
	*scratch = text
	if err != nil {
		return dst, err
	}
	return appendEscaped(dst, text)
}

// encodePlain writes a value of a type that captures do not write by what it is in Avro.
func encodePlain(dst []byte, scratch *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	text, err := appendPlain((*scratch)[:0], v)
	*scratch = text
	if err != nil {
		return dst, err
	}
	return appendEscaped(dst, text)
}

// encodeInterval writes microseconds as hours, minutes and seconds: PostgreSQL before 15
// does not take a great number of microseconds.
func encodeInterval(dst []byte, _ *[]byte, v sinks.Value, _ *sinks.Column) ([]byte, error) {
	return appendInterval(dst, v.Int()), nil
}

func appendInterval(dst []byte, micros int64) []byte {
	u := uint64(micros)
	if micros < 0 {
		dst = append(dst, '-')
		u = -u
	}
	seconds := u / 1e6
	dst = strconv.AppendUint(dst, seconds/3600, 10)
	dst = appendDigits(append(dst, ':'), seconds/60%60, 2)
	dst = appendDigits(append(dst, ':'), seconds%60, 2)
	return appendDigits(append(dst, '.'), u%1e6, 6)
}

// appendDigits appends u in exactly n digits.
func appendDigits(dst []byte, u uint64, n int) []byte {
	for unit := uint64(math.Pow10(n - 1)); unit > 0; unit /= 10 {
		dst = append(dst, byte('0'+u/unit%10))
	}
	return dst
}
