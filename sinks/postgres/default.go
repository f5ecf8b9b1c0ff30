package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
)

// A column that is added with a default has it in the rows that are there, and the log does
// not say so: the target has to give it to its rows too. The schema of the changes knows it.

// defaultsOf returns the defaults of a table's columns, by name, as the schema has them.
func defaultsOf(ctx context.Context, t *sinks.Table, schema func(context.Context, int32) (string, error)) (map[string]any, error) {
	if schema == nil {
		return nil, nil
	}
	text, err := schema(ctx, t.ValueID)
	if err != nil {
		return nil, fmt.Errorf("read the defaults of topic %s: %w", t.Topic, err)
	}
	compiled, err := schemas.CompileSchema(text)
	if err != nil {
		return nil, fmt.Errorf("read the defaults of topic %s: %w", t.Topic, err)
	}
	root := compiled.Type()
	i := root.Field("after")
	if i < 0 {
		return nil, nil
	}
	row := root.Fields[i].Type
	for _, b := range row.Branches {
		if b.Kind == schemas.AvroRecord {
			row = b
		}
	}
	defaults := make(map[string]any)
	for _, f := range row.Fields {
		if f.HasDefault && f.Default != nil {
			defaults[f.Name] = f.Default
		}
	}
	return defaults, nil
}

// zeroUUID is, as is 0 of a time, what a schema has for a default that is a function: there
// it says nothing about rows.
const zeroUUID = "00000000-0000-0000-0000-000000000000"

// defaultText returns a default as PostgreSQL reads it; ok is false if it cannot be known.
func defaultText(c *sinks.Column, value any) (text string, ok bool) {
	switch v := value.(type) {
	case bool:
		return strconv.FormatBool(v), true
	case string:
		return defaultString(c, v)
	case json.Number:
		return defaultNumber(c, v)
	}
	return "", false
}

func defaultString(c *sinks.Column, v string) (string, bool) {
	switch c.Type.Kind {
	case schemas.Decimal:
		raw, ok := latin1(v)
		return string(schemas.AppendDecimalText(nil, raw, c.Type.Scale)), ok
	case schemas.Bytes:
		raw, ok := latin1(v)
		return string(appendHex(nil, raw, false)), ok
	case schemas.UUID:
		return v, v != zeroUUID
	case schemas.ZonedTimestamp:
		text, err := appendYearZero(nil, []byte(v))
		return string(text), err == nil && v != "1970-01-01T00:00:00Z" && v != "1970-01-01T00:00:00.000000Z"
	case schemas.JSON, schemas.XML, schemas.ZonedTime, schemas.String, schemas.Enum:
		return v, true
	}
	return "", false
}

func defaultNumber(c *sinks.Column, v json.Number) (string, bool) {
	n, err := v.Int64()
	switch c.Type.Kind {
	case schemas.Int16, schemas.Int32, schemas.Int64, schemas.Float32, schemas.Float64:
		return v.String(), true
	case schemas.Interval:
		return string(appendInterval(nil, n)), err == nil
	case schemas.Date:
		text, bc := appendDate(nil, n)
		return string(text), err == nil && n != 0 && !bc
	case schemas.Time:
		text, bad := appendTime(nil, n, c.Type.Millis())
		return string(text), err == nil && bad == nil
	case schemas.Timestamp:
		return string(appendTimestamp(nil, n, c.Type.Millis())), err == nil && n != 0
	}
	return "", false
}

// latin1 returns the bytes that stand in a schema as the characters of the same numbers.
func latin1(text string) ([]byte, bool) {
	raw := make([]byte, 0, utf8.RuneCountInString(text))
	for _, r := range text {
		if r > 0xff {
			return nil, false
		}
		raw = append(raw, byte(r))
	}
	return raw, true
}
