package postgres

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
)

// Values that are more than a number or a string in Avro, as text that PostgreSQL reads.

const (
	microsPerSecond = 1_000_000
	secondsPerDay   = 86_400
)

// maxScale bounds what a VariableScaleDecimal may ask for: PostgreSQL's numeric has at most
// 16383 digits after the point.
const maxScale = 16383

var errScale = errors.New("a decimal has a scale that PostgreSQL cannot hold")

// appendVarDecimal appends a VariableScaleDecimal: a record of scale and value.
func appendVarDecimal(dst []byte, v sinks.Value) ([]byte, error) {
	scale, ok := v.Inner()
	if !ok {
		return dst, errScale
	}
	raw, ok := scale.Next(v)
	if n := scale.Int(); !ok || n < 0 || n > maxScale {
		return dst, errScale
	}
	return schemas.AppendDecimalText(dst, raw.Bytes(), int(scale.Int())), nil
}

// appendDate appends a day, counted from 1970-01-01. PostgreSQL has no year 0: it is 1 BC.
func appendDate(dst []byte, days int64) (date []byte, beforeChrist bool) {
	year, month, day := civil(days)
	if beforeChrist = year <= 0; beforeChrist {
		year = 1 - year
	}
	if year > 9999 {
		dst = strconv.AppendInt(dst, year, 10)
	} else {
		dst = appendDigits(dst, uint64(year), 4)
	}
	dst = appendDigits(append(dst, '-'), uint64(month), 2)
	return appendDigits(append(dst, '-'), uint64(day), 2), beforeChrist
}

// civil returns the proleptic Gregorian date of a day counted from 1970-01-01: in eras of
// 400 years, years beginning in March.
func civil(days int64) (year, month, day int64) {
	days += 719_468 // from 0000-03-01
	era := floorDiv(days, 146_097)
	d := days - era*146_097
	y := (d - d/1460 + d/36_524 - d/146_096) / 365
	d -= 365*y + y/4 - y/100
	m := (5*d + 2) / 153
	day = d - (153*m+2)/5 + 1
	if month = m + 3; month > 12 {
		month -= 12
		y++
	}
	return era*400 + y, month, day
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// appendClock appends a time of day, in microseconds; 24:00:00 is one.
func appendClock(dst []byte, micros int64) []byte {
	seconds := uint64(micros / microsPerSecond)
	dst = appendDigits(dst, seconds/3600, 2)
	dst = appendDigits(append(dst, ':'), seconds/60%60, 2)
	dst = appendDigits(append(dst, ':'), seconds%60, 2)
	if fraction := uint64(micros % microsPerSecond); fraction > 0 {
		dst = appendDigits(append(dst, '.'), fraction, 6)
	}
	return dst
}

var errTime = errors.New("a time of day is outside its day")

// appendTime appends a Time that was counted in milliseconds or microseconds.
func appendTime(dst []byte, v int64, millis bool) ([]byte, error) {
	if millis {
		v *= 1000
	}
	if v < 0 || v > secondsPerDay*microsPerSecond {
		return dst, errTime
	}
	return appendClock(dst, v), nil
}

// appendTimestamp appends a Timestamp, in milliseconds or microseconds since 1970. Two
// values stand for the infinities, see schemas.TimestampInfinity.
func appendTimestamp(dst []byte, v int64, millis bool) []byte {
	perSecond := int64(microsPerSecond)
	infinity, negative := int64(schemas.TimestampInfinity), int64(schemas.TimestampNegativeInfinity)
	if millis {
		perSecond, infinity, negative = 1000, infinity/1000, negative/1000
	}
	switch v {
	case infinity:
		return append(dst, "infinity"...)
	case negative:
		return append(dst, "-infinity"...)
	}
	days := floorDiv(v, secondsPerDay*perSecond)
	clock := (v - days*secondsPerDay*perSecond) * (microsPerSecond / perSecond)
	dst, bc := appendDate(dst, days)
	dst = appendClock(append(dst, ' '), clock)
	if bc {
		dst = append(dst, " BC"...)
	}
	return dst
}

// appendInstant appends a ZonedTimestamp, which is text already but for years beyond 9999
// and before Christ: +12345-… and -0043-…, of 44 BC.
func appendInstant(dst, text []byte) ([]byte, error) {
	if len(text) == 0 || text[0] != '+' && text[0] != '-' || bytes.Equal(text, []byte("-infinity")) {
		return appendEscaped(dst, text)
	}
	year, rest, ok := bytes.Cut(text[1:], []byte{'-'})
	if !ok || text[0] == '+' {
		return appendEscaped(dst, text[1:])
	}
	n, err := strconv.ParseInt(string(year), 10, 64)
	if err != nil {
		return appendEscaped(dst, text)
	}
	dst = appendDigits(dst, uint64(n+1), max(4, len(year)))
	dst, err = appendEscaped(append(dst, '-'), rest)
	return append(dst, " BC"...), err
}

// appendYearZero mends the one year before Christ that has no sign: 0000 is 1 BC.
func appendYearZero(dst, text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte("0000-")) {
		return appendInstant(dst, text)
	}
	dst, err := appendEscaped(append(dst, "0001"...), text[4:])
	return append(dst, " BC"...), err
}

// appendHex appends bytes in bytea's hex format; escaped says for COPY.
func appendHex(dst, raw []byte, escaped bool) []byte {
	if escaped {
		dst = append(dst, '\\')
	}
	return hex.AppendEncode(append(dst, '\\', 'x'), raw)
}

var errNoText = errors.New("a value has no form as text")

// appendText appends a value as PostgreSQL's input function reads it, not escaped.
func appendText(dst []byte, v sinks.Value, t *schemas.Type) ([]byte, error) {
	switch t.Kind {
	case schemas.Array:
		return appendArray(dst, v, t)
	case schemas.Bytes:
		return appendHex(dst, v.Bytes(), false), nil
	case schemas.Decimal:
		return schemas.AppendDecimalText(dst, v.Bytes(), t.Scale), nil
	case schemas.VarDecimal:
		return appendVarDecimal(dst, v)
	case schemas.Date:
		dst, bc := appendDate(dst, v.Int())
		if bc {
			dst = append(dst, " BC"...)
		}
		return dst, nil
	case schemas.Time:
		return appendTime(dst, v.Int(), t.Millis())
	case schemas.Timestamp:
		return appendTimestamp(dst, v.Int(), t.Millis()), nil
	case schemas.ZonedTimestamp:
		return appendYearZero(dst, v.Bytes())
	case schemas.Interval:
		return appendInterval(dst, v.Int()), nil
	}
	return appendPlain(dst, v)
}

// appendPlain appends a value by what it is in Avro.
func appendPlain(dst []byte, v sinks.Value) ([]byte, error) {
	switch v.Kind() {
	case schemas.AvroBoolean:
		return strconv.AppendBool(dst, v.Bool()), nil
	case schemas.AvroInt, schemas.AvroLong:
		return strconv.AppendInt(dst, v.Int(), 10), nil
	case schemas.AvroFloat:
		return appendFloat(dst, v.Float(), 32), nil
	case schemas.AvroDouble:
		return appendFloat(dst, v.Float(), 64), nil
	case schemas.AvroString:
		return append(dst, v.Bytes()...), nil
	case schemas.AvroBytes, schemas.AvroFixed:
		return appendHex(dst, v.Bytes(), false), nil
	}
	return dst, errNoText
}

// appendArray appends {…}, each item in quotes, in which quotes and backslashes are
// escaped.
func appendArray(dst []byte, v sinks.Value, t *schemas.Type) (_ []byte, err error) {
	dst = append(dst, '{')
	item, ok := v.Inner()
	for first := true; ok; item, ok = item.Next(v) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		switch {
		case item.State() == sinks.Null:
			dst = append(dst, "NULL"...)
		case t.Elem.Kind == schemas.Array:
			dst, err = appendArray(dst, item, t.Elem)
		default:
			dst, err = appendItem(dst, item, t.Elem)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func appendItem(dst []byte, item sinks.Value, t *schemas.Type) ([]byte, error) {
	dst = append(dst, '"')
	from := len(dst)
	dst, err := appendText(dst, item, t)
	if err != nil {
		return dst, err
	}
	if bytes.ContainsAny(dst[from:], `"\`) {
		plain := bytes.Clone(dst[from:])
		dst = dst[:from]
		for _, b := range plain {
			if b == '"' || b == '\\' {
				dst = append(dst, '\\')
			}
			dst = append(dst, b)
		}
	}
	return append(dst, '"'), nil
}
