package schemas

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/linkedin/goavro/v2"
)

// Derived is what follows from a version of a table: its topic, and the Avro schemas of
// its records' keys and values, as Debezium and Confluent's AvroData write them.
type Derived struct {
	Topic       string
	KeySchema   string // empty: the table has no key
	ValueSchema string // the envelope
}

// Derive derives a table's topic and schemas. The text is the same for the same table and
// naming, to the letter. It is an error if a column's name is none in Avro and not
// adjusted, if two columns get one name, or if a type is incomplete.
func Derive(t *Table, n Naming) (*Derived, error) {
	if err := n.check(); err != nil {
		return nil, err
	}
	if n.Connector != "postgresql" {
		return nil, fmt.Errorf("derive schemas: no source block is known for connector %q", n.Connector)
	}
	if err := checkTable(t, &n); err != nil {
		return nil, fmt.Errorf("derive schemas of %s.%s: %w", t.Namespace, t.Name, err)
	}
	topic := TopicName(n.Prefix, t.Namespace, t.Name)
	d := derivation{table: t, naming: &n, namespace: n.fullName(topic)}
	out := &Derived{Topic: topic, KeySchema: d.key(), ValueSchema: d.envelope()}
	d.namespace, d.tame = tameNamespace(d.namespace), true
	for _, schema := range []string{d.key(), d.envelope()} {
		if schema == "" {
			continue
		}
		if _, err := goavro.NewCodec(schema); err != nil {
			return nil, fmt.Errorf("derive schemas of %s.%s: check: %w", t.Namespace, t.Name, err)
		}
	}
	return out, nil
}

// nameError is about the name of a column.
type nameError struct{ what, hint string }

func (e *nameError) Error() string { return e.what }

// Fatal says that trying again does not help.
func (e *nameError) Fatal() bool { return true }

// Hint says what the operator can do.
func (e *nameError) Hint() string { return e.hint }

func checkTable(t *Table, n *Naming) error {
	names := make(map[string]string, len(t.Columns))
	for i := range t.Columns {
		c := &t.Columns[i]
		name := n.fieldName(c.Name)
		if !isAvroName(name) {
			return &nameError{fmt.Sprintf("column %q cannot be a field name in Avro", c.Name),
				"set the name adjustment to avro or avro_unicode, or rename the column"}
		}
		if other, ok := names[name]; ok {
			return &nameError{fmt.Sprintf("columns %q and %q both become field %s", other, c.Name, name),
				"choose another name adjustment (avro_unicode keeps names apart), or rename one of the columns"}
		}
		names[name] = c.Name
		if err := checkType(&c.Type, 0); err != nil {
			return fmt.Errorf("column %q: %w", c.Name, err)
		}
	}
	for _, i := range t.Key {
		if i < 0 || i >= len(t.Columns) {
			return fmt.Errorf("key column %d of %d", i, len(t.Columns))
		}
	}
	return nil
}

func checkType(t *Type, depth int) error {
	switch {
	case t.Kind == Invalid || t.Kind > Array:
		return fmt.Errorf("unknown kind %d", t.Kind)
	case t.Kind == Array && (t.Elem == nil || depth > 5): // PostgreSQL: 6 dimensions
		return errors.New("array without elements' type, or nested too deep")
	case t.Kind == Array:
		return checkType(t.Elem, depth+1)
	}
	return nil
}

// tameNamespace returns a namespace in whose parts all is allowed by Avro: AvroData lets
// any pass, goavro does not.
func tameNamespace(namespace string) string {
	parts := strings.Split(namespace, ".")
	for i, p := range parts {
		if !isAvroName(p) {
			tame := Naming{Adjust: AdjustUnicode}
			parts[i] = "n" + tame.fieldName(p)
		}
	}
	return strings.Join(parts, ".")
}

// goavroReads says whether goavro can read a default: it takes numbers as floats, which
// the highest longs do not survive, and the bytes of decimals not at all within a union.
func goavroReads(t *Type, value string) bool {
	v, err := strconv.ParseInt(value, 10, 64)
	return t.Kind != Decimal && (err != nil || v <= 1<<53)
}

// derivation writes the schemas of one table.
type derivation struct {
	table     *Table
	naming    *Naming
	namespace string
	tame      bool // what is written is for goavro's eyes

	out      []byte
	knowsVSD bool // VariableScaleDecimal has been written: from then on it is named only
}

func (d *derivation) key() string {
	if len(d.table.Key) == 0 {
		return ""
	}
	d.begin()
	d.record("Key", true)
	for i, column := range d.table.Key {
		d.field(i, &d.table.Columns[column])
	}
	d.recordEnd("Key")
	return string(d.out)
}

func (d *derivation) envelope() string {
	d.begin()
	d.record("Envelope", true)
	d.text(`{"name":"before","type":["null",`)
	d.record("Value", false)
	for i := range d.table.Columns {
		d.field(i, &d.table.Columns[i])
	}
	d.recordEnd("Value")
	d.text(`],"default":null},{"name":"after","type":["null","Value"],"default":null},{"name":"source","type":`)
	d.text(postgresSource)
	d.text(`},` + transactionBlock + `,{"name":"op","type":"string"},`)
	d.text(optionalLong("ts_ms") + `,` + optionalLong("ts_us") + `,` + optionalLong("ts_ns"))
	d.text(`],"connect.version":2,"connect.name":`)
	d.quoted(d.namespace + ".Envelope")
	d.text(`}`)
	return string(d.out)
}

func (d *derivation) begin() { d.out, d.knowsVSD = nil, false }

func (d *derivation) text(s string)   { d.out = append(d.out, s...) }
func (d *derivation) quoted(s string) { d.out = appendJSONString(d.out, s) }

// record opens a record up to its first field. A record inside another of the same
// namespace does not repeat that.
func (d *derivation) record(name string, outermost bool) {
	d.text(`{"type":"record","name":"` + name + `"`)
	if outermost {
		d.text(`,"namespace":`)
		d.quoted(d.namespace)
	}
	d.text(`,"fields":[`)
}

func (d *derivation) recordEnd(name string) {
	d.text(`],"connect.name":`)
	d.quoted(d.namespace + "." + name)
	d.text(`}`)
}

// field writes the i-th field of a record.
func (d *derivation) field(i int, c *Column) {
	if i > 0 {
		d.text(`,`)
	}
	d.text(`{"name":`)
	d.quoted(d.naming.fieldName(c.Name))
	d.text(`,"type":`)
	value, hasDefault := c.defaultJSON()
	switch {
	case !c.Nullable:
		d.typ(&c.Type, value)
	case hasDefault: // a union's default is of its first branch
		d.text(`[`)
		d.typ(&c.Type, value)
		d.text(`,"null"]`)
	default:
		d.text(`["null",`)
		d.typ(&c.Type, "")
		d.text(`]`)
		value = "null"
	}
	if value != "" && !(d.tame && hasDefault && !goavroReads(&c.Type, value)) {
		d.text(`,"default":` + value)
	}
	d.text(`}`)
}

// typ writes a type with its Connect attributes, in AvroData's order; value is the default
// as JSON, empty if there is none.
func (d *derivation) typ(t *Type, value string) {
	switch t.Kind {
	case VarDecimal:
		d.variableScaleDecimal()
		return
	case Array:
		d.text(`{"type":"array","items":`)
		d.items(t.Elem)
		d.text(`}`)
		return
	}
	a := annotate(t)
	if a == (annotation{avro: a.avro}) && value == "" {
		d.text(`"` + a.avro + `"`)
		return
	}
	d.text(`{"type":"` + a.avro + `"` + a.numbers)
	if a.name != "" {
		d.text(`,"connect.version":1`)
	}
	if a.parameters != "" {
		d.text(`,"connect.parameters":{` + a.parameters + `}`)
	}
	if value != "" {
		d.text(`,"connect.default":` + value)
	}
	if a.name != "" {
		d.text(`,"connect.name":"` + a.name + `"`)
	}
	d.text(a.last + `}`)
}

// items writes the type of an array's elements, which can be null except in arrays of
// enums.
func (d *derivation) items(elem *Type) {
	if elem.Kind == Enum {
		d.typ(elem, "")
		return
	}
	d.text(`["null",`)
	d.typ(elem, "")
	d.text(`]`)
}

func (d *derivation) variableScaleDecimal() {
	if d.knowsVSD {
		d.text(`"io.debezium.data.VariableScaleDecimal"`)
		return
	}
	d.knowsVSD = true
	d.text(`{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[` +
		`{"name":"scale","type":"int"},{"name":"value","type":"bytes"}],` +
		`"connect.doc":"Variable scaled decimal","connect.version":1,"connect.name":"io.debezium.data.VariableScaleDecimal"}`)
}

// annotation is how a type is written in Avro, and what Connect notes beside it.
type annotation struct {
	avro       string
	numbers    string // scale and precision, as JSON members
	parameters string // members of connect.parameters
	name       string // connect.name; those that have one have version 1
	last       string // further members, at the end
}

func annotate(t *Type) annotation {
	switch t.Kind {
	case Bool:
		return annotation{avro: "boolean"}
	case Int16:
		return annotation{avro: "int", last: `,"connect.type":"int16"`}
	case Int32:
		return annotation{avro: "int"}
	case Int64:
		return annotation{avro: "long"}
	case Float32:
		return annotation{avro: "float"}
	case Float64:
		return annotation{avro: "double"}
	case Decimal:
		return annotateDecimal(t)
	case Bytes:
		return annotation{avro: "bytes"}
	case Date, Time, Timestamp, ZonedTimestamp, ZonedTime, Interval:
		return annotateTime(t)
	case UUID:
		return annotation{avro: "string", name: "io.debezium.data.Uuid"}
	case JSON:
		return annotation{avro: "string", name: "io.debezium.data.Json"}
	case XML:
		return annotation{avro: "string", name: "io.debezium.data.Xml"}
	case Enum:
		allowed := appendJSONString([]byte(`"allowed":`), strings.Join(t.Allowed, ","))
		return annotation{avro: "string", parameters: string(allowed), name: "io.debezium.data.Enum"}
	}
	return annotation{avro: "string"}
}

// annotateDecimal writes scale and precision. Avro allows a scale from 0 to the precision
// only; PostgreSQL's numeric(3,-2) becomes (5,0), numeric(3,5) becomes (5,5). Without a
// precision (money) Connect says 64.
func annotateDecimal(t *Type) annotation {
	scale, precision := max(t.Scale, 0), max(t.Precision-min(t.Scale, 0), t.Scale)
	parameters := fmt.Sprintf(`"scale":"%d"`, scale)
	if t.Precision > 0 {
		parameters += fmt.Sprintf(`,"connect.decimal.precision":"%d"`, precision)
	} else {
		precision = 64
	}
	return annotation{
		avro:       "bytes",
		numbers:    `,"scale":` + strconv.Itoa(scale) + `,"precision":` + strconv.Itoa(precision),
		parameters: parameters,
		name:       "org.apache.kafka.connect.data.Decimal",
		last:       `,"logicalType":"decimal"`,
	}
}

func annotateTime(t *Type) annotation {
	switch {
	case t.Kind == Date:
		return annotation{avro: "int", name: "io.debezium.time.Date"}
	case t.Kind == Time && t.Millis():
		return annotation{avro: "int", name: "io.debezium.time.Time"}
	case t.Kind == Time:
		return annotation{avro: "long", name: "io.debezium.time.MicroTime"}
	case t.Kind == Timestamp && t.Millis():
		return annotation{avro: "long", name: "io.debezium.time.Timestamp"}
	case t.Kind == Timestamp:
		return annotation{avro: "long", name: "io.debezium.time.MicroTimestamp"}
	case t.Kind == ZonedTimestamp:
		return annotation{avro: "string", name: "io.debezium.time.ZonedTimestamp"}
	case t.Kind == ZonedTime:
		return annotation{avro: "string", name: "io.debezium.time.ZonedTime"}
	}
	return annotation{avro: "long", name: "io.debezium.time.MicroDuration"}
}
