package sinktest

import (
	"github.com/tailrace/tailrace/schemas"
)

// Unchanged stands for a column that the source did not log because it was not touched.
var Unchanged = &struct{ _ int }{}

// unavailable is Debezium's text for it.
const unavailable = "__debezium_unavailable_value"

// column appends a column's value: nil for null, Unchanged, bool, int, float64, string (of
// numerics: their digits), []byte, []any for an array. Times are microseconds, dates days.
func (w *Writer) column(dst []byte, c *schemas.Column, v any) []byte {
	w.tb.Helper()
	union, null, value := c.Union()
	if v == nil && union {
		return schemas.AppendUnion(dst, null)
	}
	if union {
		dst = schemas.AppendUnion(dst, value)
	}
	return w.encode(dst, &c.Type, v)
}

func (w *Writer) encode(dst []byte, t *schemas.Type, v any) []byte {
	w.tb.Helper()
	if v == Unchanged {
		v = unavailable
	}
	if v == nil { // of a column that is NOT NULL, in the image of a delete
		return w.encode(dst, t, zero(t))
	}
	var err error
	switch t.Kind {
	case schemas.Bool:
		dst = schemas.AppendBool(dst, v.(bool))
	case schemas.Int16, schemas.Int32, schemas.Int64, schemas.Interval:
		dst = schemas.AppendLong(dst, int64(v.(int)))
	case schemas.Float32:
		dst = schemas.AppendFloat(dst, float32(v.(float64)))
	case schemas.Float64:
		dst = schemas.AppendDouble(dst, v.(float64))
	case schemas.Decimal:
		dst, err = schemas.AppendDecimal(dst, []byte(v.(string)), t.Scale)
	case schemas.VarDecimal:
		dst, err = schemas.AppendVarDecimal(dst, []byte(v.(string)))
	case schemas.Bytes:
		if text, ok := v.(string); ok {
			v = []byte(text)
		}
		dst = schemas.AppendBytes(dst, v.([]byte))
	case schemas.Date:
		dst = schemas.AppendDate(dst, int32(v.(int)))
	case schemas.Time:
		dst = schemas.AppendTime(dst, int64(v.(int)), t)
	case schemas.Timestamp:
		dst = schemas.AppendTimestamp(dst, int64(v.(int)), t)
	case schemas.ZonedTimestamp:
		if micros, ok := v.(int); ok {
			dst = schemas.AppendZonedTimestamp(dst, int64(micros), t)
		} else {
			dst = schemas.AppendString(dst, v.(string))
		}
	case schemas.Array:
		items := v.([]any)
		dst = schemas.AppendArrayStart(dst, len(items))
		for _, item := range items {
			if item == nil {
				dst = schemas.AppendUnion(dst, 0)
				continue
			}
			dst = w.encode(schemas.AppendUnion(dst, 1), t.Elem, item)
		}
		dst = schemas.AppendArrayEnd(dst)
	default:
		dst = schemas.AppendString(dst, v.(string))
	}
	if err != nil {
		w.tb.Fatal(err)
	}
	return dst
}

func zero(t *schemas.Type) any {
	switch t.Kind {
	case schemas.Bool:
		return false
	case schemas.Float32, schemas.Float64:
		return 0.0
	case schemas.Decimal, schemas.VarDecimal:
		return "0"
	case schemas.Array:
		return []any{}
	case schemas.Bytes, schemas.String, schemas.Enum, schemas.UUID, schemas.JSON, schemas.XML, schemas.ZonedTimestamp, schemas.ZonedTime:
		return ""
	}
	return 0
}
