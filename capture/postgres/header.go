package postgres

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"

	"github.com/tailrace/tailrace/schemas"
)

// appendKeyJSON appends the key of a row as Connect's JSON converter writes it without a
// schema, {"id":1}: the content of the headers __debezium.newkey and __debezium.oldkey.
// fields are places in m.
func appendKeyJSON(dst []byte, p *plan, m []byte, fields []field) []byte {
	dst = append(dst, '{')
	for n, i := range p.route.Table.Key {
		c := &p.columns[i]
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSONText(dst, c.name), ':')
		switch f := fields[c.at]; {
		case f.start < 0:
			dst = append(dst, "null"...)
		case c.mac != nil:
			dst = appendJSONText(dst, string(c.sum(m[f.start:f.end])))
		default:
			dst = appendValueJSON(dst, c.typ, m[f.start:f.end])
		}
	}
	return append(dst, '}')
}

// appendValueJSON appends a value: what is a number in Avro as a number, bytes in base64,
// all else as text.
func appendValueJSON(dst []byte, t *schemas.Type, text []byte) []byte {
	c := column{}
	if c.setType(t) != nil {
		return append(dst, "null"...)
	}
	switch t.Kind {
	case schemas.Bool:
		return strconv.AppendBool(dst, string(text) == "t")
	case schemas.Int16, schemas.Int32, schemas.Int64:
		return append(dst, text...)
	case schemas.Float32, schemas.Float64, schemas.Decimal, schemas.VarDecimal:
		if json.Valid(text) {
			return append(dst, text...)
		}
	case schemas.Date, schemas.Time, schemas.Timestamp, schemas.Interval:
		if avro, err := c.encode(nil, text, &c); err == nil {
			return strconv.AppendInt(dst, readLong(avro), 10)
		}
	case schemas.Bytes:
		if avro, err := c.encode(nil, text, &c); err == nil {
			n := readLong(avro)
			return appendJSONText(dst, base64.StdEncoding.EncodeToString(avro[len(avro)-int(n):]))
		}
	case schemas.ZonedTimestamp, schemas.ZonedTime:
		if avro, err := c.encode(nil, text, &c); err == nil {
			n := readLong(avro)
			return appendJSONText(dst, string(avro[len(avro)-int(n):]))
		}
	}
	return appendJSONText(dst, string(text))
}

// readLong reads the Avro long at the start of b.
func readLong(b []byte) int64 {
	var u uint64
	for i, c := range b {
		u |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			break
		}
	}
	return int64(u>>1) ^ -int64(u&1)
}

// appendJSONText appends text as a JSON string.
func appendJSONText(dst []byte, text string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil { // a string is never refused
		return append(dst, `""`...)
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte{'\n'})...)
}
