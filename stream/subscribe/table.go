package subscribe

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
)

// A Table is a table as one version of its schemas describes it: that of the
// values, and that of the keys. It is read only. Records with the same schema
// ids have the same *Table.
type Table struct {
	ValueID, KeyID int32 // schema ids in the registry; KeyID 0: the record has no key
	Topic          string
	Columns        []Column // in the order of the row's schema
	Key            []int    // columns of the key, in its order; empty for records without a key, TRUNCATE too

	value  *schemas.Schema
	key    *schemas.Schema
	fields envelopeFields
}

// Column is a column of a Table.
type Column struct {
	Name        string
	Type        schemas.Type // Kind Invalid: a type that captures do not write; see Avro
	Nullable    bool
	HasDefault  bool
	ConnectName string
	Avro        *schemas.AvroType // of a value that is not null

	marker func(tape []schemas.Value, at int) bool // says whether a value stands for "unchanged"; nil: never
}

// Column returns the index of the column called name, or -1.
func (t *Table) Column(name string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// envelopeFields are indexes of fields in the envelope and in its source
// block; -1: there is none.
type envelopeFields struct {
	before, after, source, op, tsMicros                  int
	schema, table, txID, lsn, sourceMillis, sourceMicros int
}

// A SchemaError says that records cannot be decoded.
type SchemaError struct {
	ID  int32
	Err error
}

// Error says which schema it is about.
func (e *SchemaError) Error() string { return fmt.Sprintf("schema %d: %v", e.ID, e.Err) }

// Unwrap returns the cause.
func (e *SchemaError) Unwrap() error { return e.Err }

// Fatal says whether reading again would give the same.
func (e *SchemaError) Fatal() bool {
	return e.temporary() == nil && !errors.Is(e.Err, context.Canceled) && !errors.Is(e.Err, context.DeadlineExceeded)
}

// temporary returns the registry's error, if it is one that may pass.
func (e *SchemaError) temporary() *registry.Error {
	var r *registry.Error
	if errors.As(e.Err, &r) && !r.Fatal() && !registry.NotFound(e.Err) {
		return r
	}
	return nil
}

// Hint says what a person can do.
func (e *SchemaError) Hint() string {
	var h interface{ Hint() string }
	if errors.As(e.Err, &h) && h.Hint() != "" && !registry.NotFound(e.Err) {
		return h.Hint()
	}
	return "check that the registry is the one that the capture registers its schemas with"
}

// tables finds the Table of a record by its schema ids. It is safe for
// concurrent use.
type tables struct {
	registry *registry.Client
	mutex    sync.Mutex
	known    map[ids]*Table
}

type ids struct{ value, key int32 }

func newTables(r *registry.Client) *tables {
	return &tables{registry: r, known: make(map[ids]*Table)}
}

// find returns the table of schema ids, asking the registry the first time.
func (t *tables) find(ctx context.Context, id ids) (*Table, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if table := t.known[id]; table != nil {
		return table, nil
	}
	value, err := t.registry.SchemaByID(ctx, id.value)
	if err != nil {
		return nil, &SchemaError{id.value, err}
	}
	key := ""
	if id.key != 0 {
		if key, err = t.registry.SchemaByID(ctx, id.key); err != nil {
			return nil, &SchemaError{id.key, err}
		}
	}
	table, err := newTable(id, value, key)
	if err != nil {
		return nil, err
	}
	t.known[id] = table
	return table, nil
}

// newTable compiles the schemas of a table's values and keys.
func newTable(id ids, valueText, keyText string) (*Table, error) {
	value, err := schemas.CompileSchema(valueText)
	if err != nil {
		return nil, &SchemaError{id.value, err}
	}
	t := &Table{ValueID: id.value, KeyID: id.key, value: value}
	if err := t.describe(valueText); err != nil {
		return nil, &SchemaError{id.value, err}
	}
	if id.key == 0 {
		return t, nil
	}
	if t.key, err = schemas.CompileSchema(keyText); err == nil {
		err = t.describeKey()
	}
	if err != nil {
		return nil, &SchemaError{id.key, err}
	}
	return t, nil
}

var errNoEnvelope = errors.New("it is not that of a change: a record with before, after, source and op")

// describe finds the envelope's fields and the columns.
func (t *Table) describe(text string) error {
	root := t.value.Type()
	if root.Kind != schemas.AvroRecord {
		return errNoEnvelope
	}
	f := &t.fields
	f.before, f.after, f.source, f.op = root.Field("before"), root.Field("after"), root.Field("source"), root.Field("op")
	f.tsMicros = root.Field("ts_us")
	if f.before < 0 || f.after < 0 || f.source < 0 || f.op < 0 || root.Fields[f.op].Type.Kind != schemas.AvroString {
		return errNoEnvelope
	}
	row, source := notNull(root.Fields[f.after].Type), root.Fields[f.source].Type
	if row == nil || row.Kind != schemas.AvroRecord || row != notNull(root.Fields[f.before].Type) || source.Kind != schemas.AvroRecord {
		return errNoEnvelope
	}
	f.schema, f.table, f.txID, f.lsn = source.Field("schema"), source.Field("table"), source.Field("txId"), source.Field("lsn")
	f.sourceMillis, f.sourceMicros = source.Field("ts_ms"), source.Field("ts_us")
	t.Topic = strings.TrimSuffix(root.Name, ".Envelope")
	notes, err := notesOf(text)
	if err != nil {
		return err
	}
	t.Columns = make([]Column, len(row.Fields))
	for i := range row.Fields {
		t.Columns[i] = newColumn(&row.Fields[i], notes[row.Fields[i].Name])
	}
	return nil
}

// describeKey finds the columns of the key.
func (t *Table) describeKey() error {
	root := t.key.Type()
	if root.Kind != schemas.AvroRecord {
		return errors.New("it is not that of a key: a record of columns")
	}
	for i := range root.Fields {
		c := t.Column(root.Fields[i].Name)
		if c < 0 {
			return fmt.Errorf("key column %s is none of the row", root.Fields[i].Name)
		}
		t.Key = append(t.Key, c)
	}
	return nil
}

// notNull returns the type of a union's values that are not null; nil if there
// is not one.
func notNull(t *schemas.AvroType) *schemas.AvroType {
	if t.Kind != schemas.AvroUnion {
		return t
	}
	var found *schemas.AvroType
	for _, b := range t.Branches {
		if b.Kind == schemas.AvroNull {
			continue
		}
		if found != nil {
			return nil
		}
		found = b
	}
	return found
}

func newColumn(f *schemas.AvroField, n note) Column {
	c := Column{Name: f.Name, HasDefault: f.HasDefault, Avro: notNull(f.Type)}
	if f.Type.Kind == schemas.AvroUnion {
		for _, b := range f.Type.Branches {
			c.Nullable = c.Nullable || b.Kind == schemas.AvroNull
		}
		c.HasDefault = c.HasDefault && f.Type.Branches[0].Kind != schemas.AvroNull
	}
	if c.Avro == nil { // a union of several types, or of null only
		c.Avro = f.Type
		return c
	}
	c.ConnectName = c.Avro.ConnectName
	c.Type = typeOf(c.Avro, n)
	c.marker = markerOf(c.Avro)
	return c
}

// note is what a schema's text says of a column that a compiled schema does
// not keep.
type note struct {
	connectType string
	allowed     string
	digits      string // connect.decimal.precision
}

// notesOf reads the notes of the row's columns from an envelope's text.
func notesOf(text string) (map[string]note, error) {
	var doc struct {
		Fields []struct {
			Name string          `json:"name"`
			Type json.RawMessage `json:"type"`
		} `json:"fields"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	notes := make(map[string]note)
	for _, f := range doc.Fields {
		if f.Name == "before" || f.Name == "after" {
			noteRow(notes, f.Type)
		}
	}
	return notes, nil
}

// noteRow notes the fields of the record that a type is, or has as a branch.
func noteRow(notes map[string]note, text json.RawMessage) {
	var row struct {
		Fields []struct {
			Name string          `json:"name"`
			Type json.RawMessage `json:"type"`
		} `json:"fields"`
	}
	for _, branch := range branchesOf(text) {
		if json.Unmarshal(branch, &row) != nil {
			continue // a name
		}
		for _, f := range row.Fields {
			for _, b := range branchesOf(f.Type) {
				if n, ok := noteOf(b); ok {
					notes[f.Name] = n
				}
			}
		}
	}
}

func branchesOf(text json.RawMessage) []json.RawMessage {
	var branches []json.RawMessage
	if json.Unmarshal(text, &branches) == nil {
		return branches
	}
	return []json.RawMessage{text}
}

// noteOf reads the notes of a type; of an array, those of its items.
func noteOf(text json.RawMessage) (note, bool) {
	var t struct {
		Type       json.RawMessage `json:"type"`
		Items      json.RawMessage `json:"items"`
		Connect    string          `json:"connect.type"`
		Parameters struct {
			Allowed string `json:"allowed"`
			Digits  string `json:"connect.decimal.precision"`
		} `json:"connect.parameters"`
	}
	if json.Unmarshal(text, &t) != nil {
		return note{}, false
	}
	for _, b := range branchesOf(t.Items) {
		if n, ok := noteOf(b); ok {
			return n, true
		}
	}
	return note{t.Connect, t.Parameters.Allowed, t.Parameters.Digits}, true
}

// named are the kinds of types that Connect or Debezium has a name for.
var named = map[string]schemas.Type{
	"io.debezium.data.VariableScaleDecimal": {Kind: schemas.VarDecimal},
	"io.debezium.data.Uuid":                 {Kind: schemas.UUID},
	"io.debezium.data.Json":                 {Kind: schemas.JSON},
	"io.debezium.data.Xml":                  {Kind: schemas.XML},
	"io.debezium.time.Date":                 {Kind: schemas.Date},
	"io.debezium.time.Time":                 {Kind: schemas.Time, Precision: 3},
	"io.debezium.time.MicroTime":            {Kind: schemas.Time, Precision: 6},
	"io.debezium.time.Timestamp":            {Kind: schemas.Timestamp, Precision: 3},
	"io.debezium.time.MicroTimestamp":       {Kind: schemas.Timestamp, Precision: 6},
	"io.debezium.time.ZonedTimestamp":       {Kind: schemas.ZonedTimestamp, Precision: 6},
	"io.debezium.time.ZonedTime":            {Kind: schemas.ZonedTime, Precision: 6},
	"io.debezium.time.MicroDuration":        {Kind: schemas.Interval},
}

// typeOf returns the neutral type that a capture would derive t from: the
// reverse of schemas.Derive. Digits of seconds' fractions are known as 3 or 6
// only.
func typeOf(t *schemas.AvroType, n note) schemas.Type {
	switch t.ConnectName {
	case "org.apache.kafka.connect.data.Decimal":
		digits, _ := strconv.Atoi(n.digits) // none: as money
		return schemas.Type{Kind: schemas.Decimal, Precision: digits, Scale: t.Scale}
	case "io.debezium.data.Enum":
		return schemas.Type{Kind: schemas.Enum, Allowed: strings.Split(n.allowed, ",")}
	case "":
		return plainType(t, n)
	}
	return named[t.ConnectName]
}

func plainType(t *schemas.AvroType, n note) schemas.Type {
	switch t.Kind {
	case schemas.AvroBoolean:
		return schemas.Type{Kind: schemas.Bool}
	case schemas.AvroInt:
		if n.connectType == "int16" || n.connectType == "int8" {
			return schemas.Type{Kind: schemas.Int16}
		}
		return schemas.Type{Kind: schemas.Int32}
	case schemas.AvroLong:
		return schemas.Type{Kind: schemas.Int64}
	case schemas.AvroFloat:
		return schemas.Type{Kind: schemas.Float32}
	case schemas.AvroDouble:
		return schemas.Type{Kind: schemas.Float64}
	case schemas.AvroString:
		return schemas.Type{Kind: schemas.String}
	case schemas.AvroBytes:
		return schemas.Type{Kind: schemas.Bytes}
	case schemas.AvroArray:
		item := notNull(t.Items)
		if item == nil {
			return schemas.Type{}
		}
		elem := typeOf(item, n)
		if elem.Kind == schemas.Invalid {
			return schemas.Type{}
		}
		return schemas.Type{Kind: schemas.Array, Elem: &elem}
	}
	return schemas.Type{}
}

// frameID returns the schema id of framed bytes, and what follows the frame.
func frameID(b []byte) (id int32, body []byte, err error) {
	if len(b) < schemas.FrameSize || b[0] != 0 {
		return 0, nil, errors.New("it is not Avro in Confluent's frame")
	}
	return int32(binary.BigEndian.Uint32(b[1:])), b[schemas.FrameSize:], nil
}
