package webhook

import (
	"encoding/base64"
	"errors"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
)

var (
	errNoText = errors.New("its type has no form as text")
	errUTF8   = errors.New("it is not UTF-8")
	errTime   = errors.New("it is no time of day")
	errScale  = errors.New("its scale is no decimal's")
)

// maxScale bounds the zeros that a VariableScaleDecimal may ask for: PostgreSQL's numeric
// has at most 16383 digits after the point.
const maxScale = 16383

// appendValue appends a value as JSON:
//
//	bool, int, long, float, double   as they are; NaN and the infinities are strings
//	decimal                          a string with all its digits, "12.50"
//	date, time, timestamp, interval  a string in ISO 8601; with time zone in UTC, with a Z
//	bytes                            a string in base64
//	uuid, enum, xml, json, text      a string; a document in it is not taken apart
//	array, map, record               as they are
func appendValue(dst []byte, v sinks.Value, t *schemas.Type) ([]byte, error) {
	if v.State() == sinks.Null {
		return append(dst, "null"...), nil
	}
	if t.Kind == schemas.Array || t.Kind == schemas.Invalid {
		switch v.Kind() {
		case schemas.AvroArray:
			return appendArray(dst, v, t)
		case schemas.AvroMap:
			return appendMap(dst, v)
		case schemas.AvroRecord:
			return appendRecord(dst, v)
		}
	}
	var room [64]byte
	text, quoted, err := appendText(room[:0], v, t)
	switch {
	case err != nil:
		return dst, err
	case quoted:
		return appendString(dst, text)
	}
	return append(dst, text...), nil
}

// appendText appends a single value as text, unescaped; quoted says that JSON has it as a
// string.
func appendText(dst []byte, v sinks.Value, t *schemas.Type) (_ []byte, quoted bool, err error) {
	switch t.Kind {
	case schemas.Decimal:
		return schemas.AppendDecimalText(dst, v.Bytes(), t.Scale), true, nil
	case schemas.VarDecimal:
		dst, err = appendVarDecimal(dst, v)
		return dst, true, err
	case schemas.Date:
		return schemas.AppendDateText(dst, v.Int()), true, nil
	case schemas.Time:
		if most := int64(86_400_000_000); v.Int() < 0 || v.Int() > most || t.Millis() && v.Int() > most/1000 {
			return dst, true, errTime
		}
		return schemas.AppendTimeText(dst, v.Int(), t), true, nil
	case schemas.Timestamp:
		return schemas.AppendTimestampText(dst, v.Int(), t), true, nil
	case schemas.Interval:
		return schemas.AppendIntervalText(dst, v.Int()), true, nil
	}
	return appendPlain(dst, v)
}

// appendPlain appends a value by what it is in Avro.
func appendPlain(dst []byte, v sinks.Value) (_ []byte, quoted bool, err error) {
	switch v.Kind() {
	case schemas.AvroBoolean:
		return strconv.AppendBool(dst, v.Bool()), false, nil
	case schemas.AvroInt, schemas.AvroLong:
		return strconv.AppendInt(dst, v.Int(), 10), false, nil
	case schemas.AvroFloat:
		dst, quoted = appendFloat(dst, v.Float(), 32)
		return dst, quoted, nil
	case schemas.AvroDouble:
		dst, quoted = appendFloat(dst, v.Float(), 64)
		return dst, quoted, nil
	case schemas.AvroString:
		return append(dst, v.Bytes()...), true, nil
	case schemas.AvroBytes, schemas.AvroFixed:
		if v.Type().Logical == "decimal" {
			return schemas.AppendDecimalText(dst, v.Bytes(), v.Type().Scale), true, nil
		}
		return base64.StdEncoding.AppendEncode(dst, v.Bytes()), true, nil
	}
	return dst, false, errNoText
}

func appendFloat(dst []byte, f float64, bits int) (_ []byte, quoted bool) {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...), true
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...), true
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...), true
	}
	return strconv.AppendFloat(dst, f, 'g', -1, bits), false
}

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

var untyped schemas.Type

func appendArray(dst []byte, v sinks.Value, t *schemas.Type) (_ []byte, err error) {
	elem := t.Elem
	if elem == nil {
		elem = &untyped
	}
	dst = append(dst, '[')
	first := true
	for item, ok := v.Inner(); ok; item, ok = item.Next(v) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if dst, err = appendValue(dst, item, elem); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendMap(dst []byte, v sinks.Value) (_ []byte, err error) {
	dst = append(dst, '{')
	first := true
	for key, ok := v.Inner(); ok; {
		value, there := key.Next(v)
		if !there {
			return dst, errNoText
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if dst, err = appendString(dst, key.Bytes()); err != nil {
			return dst, err
		}
		if dst, err = appendValue(append(dst, ':'), value, &untyped); err != nil {
			return dst, err
		}
		key, ok = value.Next(v)
	}
	return append(dst, '}'), nil
}

func appendRecord(dst []byte, v sinks.Value) (_ []byte, err error) {
	dst = append(dst, '{')
	item, ok := v.Inner()
	for i := 0; ok; item, ok = item.Next(v) {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendString(dst, v.Type().Fields[i].Name); err != nil {
			return dst, err
		}
		if dst, err = appendValue(append(dst, ':'), item, &untyped); err != nil {
			return dst, err
		}
		i++
	}
	return append(dst, '}'), nil
}

// appendString appends text as a JSON string.
func appendString[T string | []byte](dst []byte, text T) ([]byte, error) {
	if !utf8.ValidString(string(text)) {
		return dst, errUTF8
	}
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(text) {
		switch b := text[i]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b == '\n':
			dst = append(dst, '\\', 'n')
		case b < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		default:
			dst = append(dst, b)
		}
	}
	return append(dst, '"'), nil
}
