package schemas

import "fmt"

// AvroKind is a kind of Avro type.
type AvroKind uint8

// The kinds of the Avro specification.
const (
	AvroNull AvroKind = iota
	AvroBoolean
	AvroInt
	AvroLong
	AvroFloat
	AvroDouble
	AvroBytes
	AvroString
	AvroRecord
	AvroEnum
	AvroArray
	AvroMap
	AvroUnion
	AvroFixed
)

var avroKinds = [...]string{"null", "boolean", "int", "long", "float", "double", "bytes", "string",
	"record", "enum", "array", "map", "union", "fixed"}

// String returns the kind's name as it stands in schemas.
func (k AvroKind) String() string { return avroKinds[k] }

// AvroType is one type of a compiled schema. Types may contain themselves. It is read
// only.
type AvroType struct {
	Kind        AvroKind
	Name        string      // full name of a record, enum or fixed
	Fields      []AvroField // of a record
	Symbols     []string    // of an enum
	Branches    []*AvroType // of a union
	Items       *AvroType   // of an array; of a map: its values
	Size        int         // of a fixed, in bytes
	Logical     string      // logicalType
	Precision   int         // of the logical type decimal
	Scale       int         // the same
	ConnectName string      // connect.name
	Aliases     []string    // full names
	EnumDefault string      // symbol for those that a reader does not know; empty: none
}

// AvroField is a field of a record.
type AvroField struct {
	Name       string
	Type       *AvroType
	Aliases    []string
	HasDefault bool
	Default    any // as encoding/json gives it, numbers as json.Number
}

// label names the type for people.
func (t *AvroType) label() string {
	if t.Name != "" {
		return t.Kind.String() + " " + t.Name
	}
	return t.Kind.String()
}

// Limits bounds what one value may be when it is decoded. Its bytes alone do not bound it:
// an array of a billion nulls has six.
type Limits struct {
	Bytes  int // of the body
	Values int // of all kinds, also records, items, nulls
	Depth  int // of records, arrays and maps in each other
}

// DefaultLimits are the limits of a compiled schema. A Value takes some 50 bytes.
var DefaultLimits = Limits{Bytes: 64 << 20, Values: 1 << 20, Depth: 64}

// Schema is an Avro schema compiled to decode with. It may be used by several goroutines
// at once.
type Schema struct {
	root   *AvroType
	limits Limits
	op     int // index of the field op, if the schema is an envelope's; else -1
}

// CompileSchema reads an Avro schema's JSON text. It refuses what the Avro specification
// does, texts of more than 1 MiB, and types more than 64 deep in each other. As AvroData does, it
// lets a namespace be any text.
func CompileSchema(schema string) (*Schema, error) {
	return CompileSchemaWithin(schema, DefaultLimits)
}

// CompileSchemaWithin is CompileSchema with other limits for the values to decode.
func CompileSchemaWithin(schema string, limits Limits) (*Schema, error) {
	root, err := parseAvro(schema)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	return &Schema{root: root, limits: limits, op: envelopeOp(root)}, nil
}

// Type returns the schema's outermost type.
func (s *Schema) Type() *AvroType { return s.root }

// envelopeOp returns the index of an envelope's field op, or -1.
func envelopeOp(root *AvroType) int {
	if root.Kind != AvroRecord || root.Field("before") < 0 || root.Field("after") < 0 {
		return -1
	}
	if i := root.Field("op"); i >= 0 && root.Fields[i].Type.Kind == AvroString {
		return i
	}
	return -1
}

// Field returns the index of a record's field, or -1.
func (t *AvroType) Field(name string) int {
	for i := range t.Fields {
		if t.Fields[i].Name == name {
			return i
		}
	}
	return -1
}
