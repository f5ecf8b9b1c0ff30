package postgres

import (
	"crypto/md5"
	"errors"
	"fmt"
	"hash"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// unavailable stands for a TOASTed value that an UPDATE did not touch. Source: Debezium's
// option unavailable.value.placeholder.
const unavailable = "__debezium_unavailable_value"

// Reasons why a row does not fit its plan, which may fit another version of the table.
var (
	errNull         = errors.New("the column is null in the log, but not nullable")
	errUnknownLabel = errors.New("the label is none of the enum's")
	errUnavailable  = errors.New("the value was not changed and is not in the log")
)

// column is one column of a plan.
type column struct {
	name   string
	at     int // its place in the log's rows
	typ    *schemas.Type
	encode encoder
	fixed  []byte // what is written whatever the log has; nil: that is encoded

	nullable    bool
	union       bool // what is written begins with a branch of a union:
	null, value byte // one of these

	elem      *column             // of an array
	labels    map[string]struct{} // of an enum
	scratch   []byte              // of an array: an item without its quotes; of an HMAC: the sum
	mac       hash.Hash           // of a column that is masked with one
	length    int                 // to which a masked text is cut, in characters
	inOld     bool                // an old row of kind 'K' has it
	unchanged []byte              // what an unchanged TOASTed value is written as; nil: nothing can be
	absent    []byte              // what stands for a column that the old row does not have
}

// plan writes the rows of one version of a table. It has scratch space: it is used by one
// goroutine.
type plan struct {
	route   *capture.Route
	columns []column
	source  schemas.SourceTable
	nulls   bool // write null for what cannot be represented
}

// compile makes the plan of a relation's rows from the version that holds for it.
func compile(rel *relation, route *capture.Route, nulls bool) (*plan, error) {
	t, written := route.Table, rel.written()
	if len(t.Columns) != len(written) {
		return nil, fmt.Errorf("its version has %d columns, the log %d", len(t.Columns), len(written))
	}
	p := &plan{route: route, nulls: nulls, columns: make([]column, len(t.Columns)),
		source: schemas.NewSourceTable(t.Namespace, t.Name)}
	for i, at := range written {
		c, logged := &p.columns[i], &rel.columns[at]
		if t.Columns[i].Name != logged.name {
			return nil, fmt.Errorf("column %d of its version is %q, in the log %q", i+1, t.Columns[i].Name, logged.name)
		}
		if err := c.compile(&t.Columns[i]); err != nil {
			return nil, err
		}
		if err := c.setMask(rel.choice.mask(at)); err != nil {
			return nil, err
		}
		c.at, c.inOld = at, logged.key
	}
	for _, i := range t.Key {
		if i < 0 || i >= len(p.columns) {
			return nil, fmt.Errorf("its version has key column %d of %d", i, len(p.columns))
		}
	}
	return p, nil
}

func (c *column) compile(def *schemas.Column) error {
	c.name, c.nullable = def.Name, def.Nullable
	var null, value int64
	c.union, null, value = def.Union()
	c.null, c.value = schemas.AppendUnion(nil, null)[0], schemas.AppendUnion(nil, value)[0]
	if err := c.setType(&def.Type); err != nil {
		return err
	}
	if mark := c.marker(); mark != nil {
		c.unchanged = append(c.branch(), mark...)
	}
	if c.nullable {
		c.absent = []byte{c.null}
		return nil
	}
	c.absent = c.appendDefault(nil, &def.Default)
	return nil
}

// branch returns what a value begins with.
func (c *column) branch() []byte {
	if c.union {
		return []byte{c.value}
	}
	return nil
}

func (c *column) setType(t *schemas.Type) error {
	c.typ, c.encode = t, encoderOf(t.Kind)
	switch {
	case c.encode == nil, t.Kind == schemas.Array && t.Elem == nil:
		return fmt.Errorf("column %q is of unknown kind %d", c.name, t.Kind)
	case t.Kind == schemas.Enum:
		c.labels = make(map[string]struct{}, len(t.Allowed))
		for _, label := range t.Allowed {
			c.labels[label] = struct{}{}
		}
	case t.Kind == schemas.Array:
		// Elements can be null but for those of enums: ["null",T].
		c.elem = &column{name: c.name, union: t.Elem.Kind != schemas.Enum, nullable: true, null: 0, value: 1 << 1}
		return c.elem.setType(t.Elem)
	}
	return nil
}

// encoderOf returns the encoder of a kind, nil if there is none.
func encoderOf(k schemas.Kind) encoder {
	switch k {
	case schemas.Bool:
		return encodeBool
	case schemas.Int16:
		return encodeInt16
	case schemas.Int32:
		return encodeInt32
	case schemas.Int64:
		return encodeInt64
	case schemas.Float32:
		return encodeFloat32
	case schemas.Float64:
		return encodeFloat64
	case schemas.Decimal:
		return encodeDecimal
	case schemas.VarDecimal:
		return encodeVarDecimal
	case schemas.String, schemas.UUID, schemas.JSON, schemas.XML:
		return encodeText
	case schemas.Bytes:
		return encodeBytes
	case schemas.Date:
		return encodeDate
	case schemas.Time:
		return encodeTime
	case schemas.Timestamp:
		return encodeTimestamp
	case schemas.ZonedTimestamp:
		return encodeZonedTimestamp
	case schemas.ZonedTime:
		return encodeZonedTime
	case schemas.Interval:
		return encodeInterval
	case schemas.Enum:
		return encodeEnum
	case schemas.Array:
		return encodeArray
	}
	return nil
}

// marker returns the Avro of an unchanged TOASTed value, nil for a type that has none.
func (c *column) marker() []byte {
	switch c.typ.Kind {
	case schemas.String, schemas.JSON, schemas.XML, schemas.Bytes:
		return schemas.AppendString(nil, unavailable)
	case schemas.Array:
		return c.arrayMarker()
	}
	return nil
}

// arrayMarker: one item, or for numbers and dates one item for each byte.
func (c *column) arrayMarker() []byte {
	item := []byte{c.elem.value}
	switch c.elem.typ.Kind {
	case schemas.String, schemas.JSON, schemas.Bytes:
		item = schemas.AppendString(item, unavailable)
	case schemas.UUID:
		item = schemas.AppendString(item, nameUUID(unavailable))
	case schemas.Int32, schemas.Int64, schemas.Date:
		b := schemas.AppendArrayStart(nil, len(unavailable))
		for _, v := range []byte(unavailable) {
			b = schemas.AppendLong(append(b, c.elem.value), int64(v))
		}
		return schemas.AppendArrayEnd(b)
	default:
		return nil
	}
	return schemas.AppendArrayEnd(append(schemas.AppendArrayStart(nil, 1), item...))
}

// nameUUID returns the UUID of version 3 that Java's UUID.nameUUIDFromBytes makes of name.
func nameUUID(name string) string {
	h := md5.Sum([]byte(name))
	h[6] = h[6]&0x0f | 0x30
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:])
}

// appendDefault appends what stands for a column that is not nullable and not there: its
// default, or the type's zero.
func (c *column) appendDefault(dst []byte, d *schemas.Default) []byte {
	if d.Kind == schemas.ValueDefault {
		if out, err := c.appendNeutral(dst, d.Text); err == nil {
			return out
		}
	}
	switch c.typ.Kind {
	case schemas.Array:
		return schemas.AppendArrayEnd(dst)
	case schemas.String, schemas.XML, schemas.Bytes, schemas.Enum:
		return schemas.AppendString(dst, "")
	case schemas.JSON:
		return schemas.AppendString(dst, "{}")
	case schemas.UUID:
		return schemas.AppendString(dst, "00000000-0000-0000-0000-000000000000")
	}
	text := "0"
	switch c.typ.Kind {
	case schemas.Bool:
		text = "false"
	case schemas.Date:
		text = "1970-01-01"
	case schemas.Time:
		text = "00:00:00"
	case schemas.ZonedTime:
		text = "00:00:00Z"
	case schemas.Timestamp:
		text = "1970-01-01T00:00:00"
	case schemas.ZonedTimestamp:
		text = "1970-01-01T00:00:00Z"
	}
	dst, _ = c.appendNeutral(dst, text)
	return dst
}

// appendNeutral appends a value from neutral text, see schemas.Default.
func (c *column) appendNeutral(dst []byte, text string) ([]byte, error) {
	switch c.typ.Kind {
	case schemas.Bool:
		return schemas.AppendBool(dst, text == "true"), nil
	case schemas.Interval:
		return encodeInt64(dst, []byte(text), c)
	}
	return c.encode(dst, []byte(text), c)
}

// appendRow appends all columns of a row. On an error, column is the one that did not fit.
func (p *plan) appendRow(dst, m []byte, fields []field) (out []byte, column int, err error) {
	for i := range p.columns {
		c := &p.columns[i]
		if c.fixed != nil {
			dst = append(dst, c.fixed...)
			continue
		}
		f := fields[c.at]
		if f.start < 0 {
			if dst, err = c.appendMissing(dst, f); err != nil {
				return dst, i, err
			}
			continue
		}
		mark := len(dst)
		if c.union {
			dst = append(dst, c.value)
		}
		if dst, err = c.encode(dst, m[f.start:f.end], c); err != nil {
			if dst, err = p.orNull(dst[:mark], c, err); err != nil {
				return dst, i, err
			}
		}
	}
	return dst, 0, nil
}

// appendOldKey appends a row of which only the columns of the replica identity are known.
func (p *plan) appendOldKey(dst, m []byte, fields []field) (out []byte, column int, err error) {
	for i := range p.columns {
		c := &p.columns[i]
		if !c.inOld {
			dst = append(dst, c.absent...)
			continue
		}
		if dst, err = p.appendField(dst, m, fields[c.at], c); err != nil {
			return dst, i, err
		}
	}
	return dst, 0, nil
}

// appendKey appends the framed key of a row.
func (p *plan) appendKey(dst, m []byte, fields []field) (out []byte, column int, err error) {
	dst = schemas.AppendFrame(dst, p.route.KeyID)
	for _, i := range p.route.Table.Key {
		c := &p.columns[i]
		if fields[c.at].start == fieldUnchanged { // a marker would be another row's key
			return dst, i, errUnavailable
		}
		if dst, err = p.appendField(dst, m, fields[c.at], c); err != nil {
			return dst, i, err
		}
	}
	return dst, 0, nil
}

func (p *plan) appendField(dst, m []byte, f field, c *column) ([]byte, error) {
	if c.fixed != nil {
		return append(dst, c.fixed...), nil
	}
	if f.start < 0 {
		return c.appendMissing(dst, f)
	}
	mark := len(dst)
	if c.union {
		dst = append(dst, c.value)
	}
	dst, err := c.encode(dst, m[f.start:f.end], c)
	if err != nil {
		return p.orNull(dst[:mark], c, err)
	}
	return dst, nil
}

// appendMissing appends a field without text.
func (c *column) appendMissing(dst []byte, f field) ([]byte, error) {
	switch {
	case f.start == fieldUnchanged && c.unchanged != nil:
		return append(dst, c.unchanged...), nil
	case f.start == fieldUnchanged:
		return dst, errUnavailable
	case !c.nullable:
		return dst, errNull
	}
	return append(dst, c.null), nil
}

// orNull appends null in place of what cannot be represented, if that was chosen; any
// other err it returns.
func (p *plan) orNull(dst []byte, c *column, err error) ([]byte, error) {
	if !p.nulls || !errors.Is(err, schemas.ErrUnrepresentable) {
		return dst, err
	}
	return c.appendMissing(dst, field{fieldNull, fieldNull})
}
