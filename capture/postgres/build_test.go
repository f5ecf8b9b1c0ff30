package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// What pgoutput would send, made by hand.

func message(kind byte, parts ...any) []byte {
	b := []byte{kind}
	for _, p := range parts {
		switch v := p.(type) {
		case byte:
			b = append(b, v)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case string: // ends with NUL
			b = append(append(b, v...), 0)
		case []byte:
			b = append(b, v...)
		default:
			panic(fmt.Sprintf("message part %T", p))
		}
	}
	return b
}

func beginMessage(final uint64, commitMicros int64, xid uint32) []byte {
	return message('B', final, uint64(commitMicros-postgresEpoch), xid)
}

func commitMessage(lsn, end uint64) []byte { return message('C', byte(0), lsn, end, uint64(0)) }

func relationMessage(id uint32, namespace, name string, identity byte, columns ...relationColumn) []byte {
	m := message('R', id, namespace, name, identity, uint16(len(columns)))
	for _, c := range columns {
		flags := byte(0)
		if c.key {
			flags = 1
		}
		m = append(m, flags)
		m = append(append(m, c.name...), 0)
		m = binary.BigEndian.AppendUint32(m, c.oid)
		m = binary.BigEndian.AppendUint32(m, uint32(c.mod))
	}
	return m
}

// Values of tuples that are no text.
const (
	nullValue      = "\x00null"
	unchangedValue = "\x00unchanged"
)

func tuple(values ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		switch v {
		case nullValue:
			b = append(b, 'n')
		case unchangedValue:
			b = append(b, 'u')
		default:
			b = binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(v)))
			b = append(b, v...)
		}
	}
	return b
}

func insertMessage(id uint32, values ...string) []byte {
	return message('I', id, byte('N'), tuple(values...))
}

// oldTuple is nil for none.
func updateMessage(id uint32, tag byte, old, values []string) []byte {
	if old == nil {
		return message('U', id, byte('N'), tuple(values...))
	}
	return message('U', id, tag, tuple(old...), byte('N'), tuple(values...))
}

func deleteMessage(id uint32, tag byte, old ...string) []byte {
	return message('D', id, tag, tuple(old...))
}

func truncateMessage(ids ...uint32) []byte {
	m := message('T', uint32(len(ids)), byte(0))
	for _, id := range ids {
		m = binary.BigEndian.AppendUint32(m, id)
	}
	return m
}

// logData is the content of a CopyData message.
func logData(lsn uint64, m []byte) []byte {
	return message('w', lsn, lsn, uint64(0), m)
}

func keepaliveMessage(end uint64, asked bool) []byte {
	want := byte(0)
	if asked {
		want = 1
	}
	return message('k', end, uint64(0), want)
}

// frame puts a message of the protocol into its frame.
func frame(kind byte, content []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(content))), content...)
}

// testTypes are the names of types in tests.
var testTypes = map[string]uint32{
	"bool": 16, "bytea": 17, "int8": 20, "int2": 21, "int4": 23, "text": 25, "oid": 26, "json": 114, "xml": 142,
	"float4": 700, "float8": 701, "bpchar": 1042, "varchar": 1043, "date": 1082, "time": 1083, "timestamp": 1114,
	"timestamptz": 1184, "interval": 1186, "timetz": 1266, "numeric": 1700, "uuid": 2950, "jsonb": 3802,
	"mood": 100_000, // an enum
}

const firstArray = 200_000 // arrays in tests: the element's number and this

// testColumn is a column as tests write it: a type with modifier, NULL allowed, default.
type testColumn struct {
	relationColumn
	def schemas.Column
}

// col makes a column: col("id", "int4 key"), col("n", "numeric(10,2) null default 1.50"),
// col("m", "mood(a,b)"), col("a", "int4[]").
func col(name, spec string) testColumn {
	words := strings.Fields(spec)
	typ, isArray := strings.CutSuffix(words[0], "[]")
	typ, mods, _ := strings.Cut(typ, "(")
	mods = strings.TrimSuffix(mods, ")")
	c := testColumn{relationColumn: relationColumn{name: name, oid: testTypes[typ], mod: -1}}
	if c.oid == 0 {
		panic("no type " + typ)
	}
	c.def.Name = name
	if typ == "mood" {
		c.def.Type = schemas.Type{Kind: schemas.Enum, Allowed: strings.Split(mods, ",")}
	} else {
		c.mod = testModifier(typ, mods)
		c.def.Type = builtins[c.oid].typeWithMod(c.mod)
	}
	if isArray {
		elem := c.def.Type
		c.oid += firstArray
		c.def.Type = schemas.Type{Kind: schemas.Array, Elem: &elem}
	}
	for i, w := range words {
		switch w {
		case "key":
			c.key = true
		case "null":
			c.def.Nullable = true
		case "default":
			c.def.Default = schemas.Default{Kind: schemas.ValueDefault, Text: words[i+1]}
		case "defaultfunction":
			c.def.Default = schemas.Default{Kind: schemas.FunctionDefault}
		}
	}
	return c
}

func testModifier(typ, mods string) int32 {
	var a, b int32
	n, _ := fmt.Sscanf(mods, "%d,%d", &a, &b)
	switch {
	case n == 0:
		return -1
	case typ == "numeric":
		return a<<16 + (b & 0x7ff) + 4
	case typ == "varchar" || typ == "bpchar":
		return a + 4
	}
	return a
}

// testTable is a table of a test: the log's description and the catalog's.
type testTable struct {
	id       uint32
	identity byte
	columns  []testColumn
	table    schemas.Table
}

func newTestTable(id uint32, name string, identity byte, columns ...testColumn) *testTable {
	t := &testTable{id: id, identity: identity, columns: columns}
	t.table.Namespace, t.table.Name = "public", name
	for i, c := range columns {
		t.table.Columns = append(t.table.Columns, c.def)
		if c.key {
			t.table.Key = append(t.table.Key, i)
		}
	}
	return t
}

func (t *testTable) message() []byte {
	columns := make([]relationColumn, len(t.columns))
	for i, c := range t.columns {
		columns[i] = c.relationColumn
		columns[i].key = c.key || t.identity == identityFull
	}
	return relationMessage(t.id, t.table.Namespace, t.table.Name, t.identity, columns...)
}

// newTestStream returns a stream that writes to out and knows the catalog of tables.
func newTestStream(tb testing.TB, out capture.Emitter, tables ...*testTable) *stream {
	tb.Helper()
	src := &Source{log: slog.New(slog.DiscardHandler), confirm: newConfirmation()}
	s := &stream{src: src, relations: map[uint32]*relation{}, current: map[string]*relation{}}
	s.pace = func(bool) {}
	s.out = out
	s.now = 1_700_000_000_000_000
	s.source = schemas.NewSourceWriter(schemas.SourceConfig{Version: "test", Connector: connector, Name: "srv", Database: "shop"})
	s.describeTable = func(_ context.Context, rel *relation) (*schemas.Table, error) {
		for _, t := range tables {
			if t.id == rel.id {
				described := cloneTable(&t.table)
				rel.apply(described)
				return rel.choice.apply(described)
			}
		}
		return nil, fmt.Errorf("no table %s in the test", rel)
	}
	return s
}

func cloneTable(t *schemas.Table) *schemas.Table {
	c := *t
	c.Columns = append([]schemas.Column(nil), t.Columns...)
	for i := range c.Columns {
		typ := &c.Columns[i].Type
		typ.Allowed = append([]string(nil), typ.Allowed...)
	}
	return &c
}

// send gives messages to a stream as the log would, at LSNs 1000, 1001, …
func send(ctx context.Context, s *stream, messages ...[]byte) error {
	for i, m := range messages {
		if err := s.message(ctx, 'd', logData(uint64(1000+i), m)); err != nil {
			return err
		}
	}
	return nil
}
