package schemas

import (
	"errors"
	"math/big"
	"reflect"
	"strconv"
	"testing"

	"github.com/linkedin/goavro/v2"
)

// change writes records of the golden table as a source would.
type change struct {
	columns []Column
	source  *SourceWriter
	table   SourceTable
	decimal []byte
	numeric []byte
}

func newChange() *change {
	return &change{
		columns: goldenColumns(),
		source:  NewSourceWriter(SourceConfig{Version: "1.0", Connector: "postgresql", Name: "srv", Database: "shop"}),
		table:   NewSourceTable("public", "t"),
		decimal: []byte("-1.50"),
		numeric: []byte("12345678901234567890.5"),
	}
}

const commitMicros = 1_700_000_000_123_456

// append appends an envelope whose before is null and whose after is a whole row.
func (c *change) append(dst []byte) ([]byte, error) {
	c.source.SetTransaction(SourceTx{ID: 1 << 33, CommitMicros: commitMicros, LastCommitLSN: 100})
	dst = AppendUnion(AppendUnion(dst, EnvelopeNull), EnvelopeRow)
	var err error
	for i := range c.columns {
		if dst, err = c.column(dst, &c.columns[i]); err != nil {
			return dst, err
		}
	}
	dst = c.source.Append(dst, c.table, 18446744073709551615)
	return AppendEnvelopeTail(dst, 'c', commitMicros+1), nil
}

func (c *change) column(dst []byte, col *Column) ([]byte, error) {
	if col.Nullable { // a real plan asks Union once; that allocates
		branch := int64(1)
		if col.Default.Kind != NoDefault {
			branch = 0
		}
		dst = AppendUnion(dst, branch)
	}
	if col.Type.Kind == Array {
		dst = AppendUnion(AppendArrayStart(dst, 2), 1)
		dst, err := c.value(dst, col.Type.Elem)
		return AppendArrayEnd(AppendUnion(dst, 0)), err
	}
	return c.value(dst, &col.Type)
}

func (c *change) value(dst []byte, t *Type) ([]byte, error) {
	switch t.Kind {
	case Bool:
		return AppendBool(dst, true), nil
	case Int16, Int32:
		return AppendInt(dst, -7), nil
	case Int64:
		return AppendLong(dst, -8), nil
	case Float32:
		return AppendFloat(dst, 1.5), nil
	case Float64:
		return AppendDouble(dst, 2.5), nil
	case Decimal:
		return AppendDecimal(dst, c.decimal, t.Scale)
	case VarDecimal:
		return AppendVarDecimal(dst, c.numeric)
	case Bytes:
		return AppendBytes(dst, c.decimal), nil
	case Date:
		return AppendDate(dst, 1), nil
	case Time:
		return AppendTime(dst, 2, t), nil
	case Timestamp:
		return AppendTimestamp(dst, 3000, t), nil
	case ZonedTimestamp:
		return AppendZonedTimestamp(dst, 0, t), nil
	case ZonedTime:
		return AppendZonedTime(dst, 0, t), nil
	case Interval:
		return AppendInterval(dst, 0, 1, 0)
	}
	return AppendString(dst, "text"), nil
}

func goldenSchema(t testing.TB) string {
	t.Helper()
	d, err := Derive(&Table{Namespace: "public", Name: "t", Columns: goldenColumns()}, naming("srv"))
	if err != nil {
		t.Fatal(err)
	}
	return d.ValueSchema
}

// What is appended must be what the derived schema says: goavro reads it.
func TestEnvelopeAsGoavro(t *testing.T) {
	body, err := newChange().append(nil)
	must(t, err)
	codec, err := goavro.NewCodec(goldenSchema(t))
	must(t, err)
	native, rest, err := codec.NativeFromBinary(body)
	must(t, err)
	if len(rest) > 0 {
		t.Fatalf("%d bytes left", len(rest))
	}
	got := native.(map[string]any)
	long := func(v int64) any { return goavro.Union("long", v) }
	source := map[string]any{"version": "1.0", "connector": "postgresql", "name": "srv", "ts_ms": int64(1_700_000_000_123),
		"snapshot": goavro.Union("string", "false"), "db": "shop", "sequence": goavro.Union("string", `["100","18446744073709551615"]`),
		"ts_us": long(commitMicros), "ts_ns": long(commitMicros * 1000), "schema": "public", "table": "t",
		"txId": long(1 << 33), "lsn": long(-1), "xmin": nil, "origin": nil, "origin_lsn": nil}
	if !reflect.DeepEqual(got["source"], any(source)) {
		t.Errorf("source %v, want %v", got["source"], source)
	}
	for name, want := range map[string]any{"before": nil, "transaction": nil, "op": "c", "ts_ms": long(1_700_000_000_123),
		"ts_us": long(commitMicros + 1), "ts_ns": long((commitMicros + 1) * 1000)} {
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s %v, want %v", name, got[name], want)
		}
	}
	checkGoldenRow(t, got["after"].(map[string]any)["srv.public.t.Value"].(map[string]any))
}

func checkGoldenRow(t *testing.T, after map[string]any) {
	t.Helper()
	rat := big.NewRat(-3, 2)
	n, _ := new(big.Int).SetString("123456789012345678905", 10)
	variable := goavro.Union("io.debezium.data.VariableScaleDecimal", map[string]any{"scale": int32(1), "value": n.Bytes()})
	for name, want := range map[string]any{
		"id": int32(-7), "i2": goavro.Union("int", int32(-7)), "i8": goavro.Union("long", int64(-8)),
		"f4": goavro.Union("float", float32(1.5)), "f8": goavro.Union("double", 2.5), "b": goavro.Union("boolean", true),
		"txt": goavro.Union("string", "text"), "def": "text", "defnull": goavro.Union("int", int32(-7)),
		"dec": goavro.Union("bytes.decimal", rat), "decdef": rat, "money": goavro.Union("bytes.decimal", rat),
		"vdec": variable, "vdec2": variable, "d": goavro.Union("int", int32(1)), "t6": goavro.Union("long", int64(2)),
		"ts3": goavro.Union("long", int64(3)), "ts6": goavro.Union("long", int64(3000)),
		"tstz": goavro.Union("string", "1970-01-01T00:00:00.000000Z"), "tstzdef": "1970-01-01T00:00:00Z",
		"timetz": goavro.Union("string", "00:00:00Z"), "iv": goavro.Union("long", int64(86_400_000_000)),
		"u": goavro.Union("string", "text"), "by": goavro.Union("bytes", []byte("-1.50")),
		"ia":  goavro.Union("array", []any{goavro.Union("int", int32(-7)), nil}),
		"na":  goavro.Union("array", []any{goavro.Union("bytes.decimal", rat), nil}),
		"tsa": goavro.Union("array", []any{goavro.Union("long", int64(3000)), nil}),
	} {
		if got := after[name]; !sameNative(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// sameNative compares what goavro gives; a rational is compared as a number.
func sameNative(a, b any) bool {
	switch a := a.(type) {
	case *big.Rat:
		b, ok := b.(*big.Rat)
		return ok && a.Cmp(b) == 0
	case map[string]any:
		b, ok := b.(map[string]any)
		for k, v := range a {
			ok = ok && sameNative(v, b[k])
		}
		return ok && len(a) == len(b)
	case []any:
		b, ok := b.([]any)
		ok = ok && len(a) == len(b)
		for i := range a {
			ok = ok && sameNative(a[i], b[i])
		}
		return ok
	}
	return reflect.DeepEqual(a, b)
}

func TestSequence(t *testing.T) {
	schema, err := CompileSchema(postgresSource)
	must(t, err)
	w := NewSourceWriter(SourceConfig{Version: "1", Connector: "postgresql", Name: "n", Database: "d"})
	tab := NewSourceTable("s", "t")
	for _, c := range []struct {
		last, lsn uint64
		want      string
	}{{0, 5, `[null,"5"]`}, {7, 0, `["7","0"]`}, {1, 1234567890, `["1","1234567890"]`}, {0, 1, `[null,"1"]`}} {
		w.SetTransaction(SourceTx{LastCommitLSN: c.last})
		tape, err := schema.Decode(nil, w.Append(nil, tab, c.lsn))
		must(t, err)
		if got := string(tape[FieldNamed(tape, 0, "sequence")].Bytes); got != c.want {
			t.Errorf("%+v: %s, want %s", c, got, c.want)
		}
		if got := tape[FieldNamed(tape, 0, "lsn")].Int(); got != int64(c.lsn) {
			t.Errorf("lsn %d, want %d", got, c.lsn)
		}
	}
}

// Rows that were read beside the log have no place in it, and the next transaction has its
// own again.
func TestSourceIncremental(t *testing.T) {
	schema, err := CompileSchema(postgresSource)
	must(t, err)
	w := NewSourceWriter(SourceConfig{Version: "1", Connector: "postgresql", Name: "n", Database: "d"})
	tab := NewSourceTable("s", "t")
	for _, tx := range []SourceTx{{Incremental: true, CommitMicros: 1_234_567}, {ID: 9, LastCommitLSN: 7, CommitMicros: 1_234_567}} {
		w.SetTransaction(tx)
		tape, err := schema.Decode(nil, w.Append(nil, tab, 5))
		must(t, err)
		field := func(name string) *Value { return &tape[FieldNamed(tape, 0, name)] }
		for _, name := range []string{"sequence", "txId", "lsn"} {
			if got := field(name).IsNull(); got != tx.Incremental {
				t.Errorf("%+v: %s is null: %t", tx, name, got)
			}
		}
		want := "false"
		if tx.Incremental {
			want = "incremental"
		}
		if got := string(field("snapshot").Bytes); got != want {
			t.Errorf("snapshot %q, want %q", got, want)
		}
		if field("ts_ms").Int() != 1234 || field("ts_us").Int() != 1_234_567 || string(field("table").Bytes) != "t" {
			t.Errorf("%+v: ts_ms %d, ts_us %d, table %s", tx, field("ts_ms").Int(), field("ts_us").Int(), field("table").Bytes)
		}
	}
}

// Several tables share one writer.
func TestSourceWriterTables(t *testing.T) {
	schema, err := CompileSchema(postgresSource)
	must(t, err)
	w := NewSourceWriter(SourceConfig{Version: "1", Connector: "postgresql", Name: "n", Database: "d"})
	for i := range 3 {
		w.SetTransaction(SourceTx{ID: uint64(i), CommitMicros: -1}) // before 1970: milliseconds round down
		for _, name := range []string{"a", "b"} {
			tape, err := schema.Decode(nil, w.Append(nil, NewSourceTable("s"+strconv.Itoa(i), name), 1))
			must(t, err)
			table, id, ms := tape[FieldNamed(tape, 0, "table")], tape[FieldNamed(tape, 0, "txId")], tape[FieldNamed(tape, 0, "ts_ms")]
			if string(table.Bytes) != name || id.Int() != int64(i) || ms.Int() != -1 {
				t.Errorf("table %s, id %d, ms %d", table.Bytes, id.Int(), ms.Int())
			}
		}
	}
}

func TestTransactionEnd(t *testing.T) {
	key, value := TransactionSchemas()
	if got, want := AppendTransactionKey(nil, "7:100"), encoded(t, key, map[string]any{"id": "7:100"}); string(got) != string(want) {
		t.Errorf("key %x, want %x", got, want)
	}
	collection := func(name string, n int64) any {
		return goavro.Union("event.collection", map[string]any{"data_collection": name, "event_count": n})
	}
	for _, c := range []struct {
		counts []CollectionCount
		native []any
		total  int64
	}{
		{nil, []any{}, 0},
		{[]CollectionCount{{"public.a", 2}, {"public.b", 300}}, []any{collection("public.a", 2), collection("public.b", 300)}, 302},
	} {
		want := encoded(t, value, map[string]any{"status": "END", "id": "7:100", "event_count": goavro.Union("long", c.total),
			"data_collections": goavro.Union("array", c.native), "ts_ms": int64(-5)})
		if got := AppendTransactionEnd(nil, "7:100", c.counts, -5); string(got) != string(want) {
			t.Errorf("%v: %x, want %x", c.counts, got, want)
		}
	}
}

func TestEnvelopeAllocatesNothing(t *testing.T) {
	c, dst := newChange(), make([]byte, 0, 4096)
	schema, err := CompileSchema(goldenSchema(t))
	must(t, err)
	var body []byte
	tape := make([]Value, 0, 200)
	if allocs := testing.AllocsPerRun(100, func() { body, err = c.append(dst[:0]) }); err != nil || allocs != 0 {
		t.Errorf("append: %v allocations, error %v", allocs, err)
	}
	if allocs := testing.AllocsPerRun(100, func() { tape, err = schema.Decode(tape, body) }); err != nil || allocs != 0 {
		t.Errorf("decode: %v allocations, error %v", allocs, err)
	}
	var op byte
	if allocs := testing.AllocsPerRun(100, func() { op, err = schema.EnvelopeOp(body) }); err != nil || allocs != 0 || op != 'c' {
		t.Errorf("op %c: %v allocations, error %v", op, allocs, err)
	}
	if allocs := testing.AllocsPerRun(100, func() { err = schema.Check(body) }); err != nil || allocs != 0 {
		t.Errorf("check: %v allocations, error %v", allocs, err)
	}
}

func TestEnvelopeOp(t *testing.T) {
	schema, err := CompileSchema(goldenSchema(t))
	must(t, err)
	body, err := newChange().append(nil)
	must(t, err)
	opAt := 0
	for n := range body { // cut before op: an error; after it: op all the same
		op, err := schema.EnvelopeOp(body[:n])
		if err == nil && opAt == 0 {
			opAt = n
		}
		if (err == nil) != (opAt > 0) || err == nil && op != 'c' || err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%d bytes: %q, %v", n, op, err)
		}
	}
	if opAt == 0 || body[opAt-1] != 'c' {
		t.Errorf("op found at %d", opAt)
	}
	truncate := AppendUnion(AppendUnion(nil, EnvelopeNull), EnvelopeNull)
	w := NewSourceWriter(SourceConfig{})
	w.SetTransaction(SourceTx{})
	source := w.Append(truncate, NewSourceTable("", ""), 1)
	if op, err := schema.EnvelopeOp(AppendEnvelopeTail(source, 't', 1)); err != nil || op != 't' {
		t.Errorf("truncate: %q, %v", op, err)
	}
	if _, err := schema.EnvelopeOp(AppendString(append(source[:len(source):len(source)], 0), "cc")); !errors.Is(err, ErrMalformed) {
		t.Errorf("op of two letters: %v", err)
	}
	key, _ := TransactionSchemas()
	other, err := CompileSchema(key)
	must(t, err)
	if _, err := other.EnvelopeOp(body); err == nil || errors.Is(err, ErrMalformed) {
		t.Errorf("op of a key: %v", err)
	}
}

func BenchmarkEnvelope(b *testing.B) {
	c, dst := newChange(), make([]byte, 0, 4096)
	body, err := c.append(nil)
	if err != nil {
		b.Fatal(err)
	}
	schema, err := CompileSchema(goldenSchema(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("append", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.append(dst); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("source", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.source.Append(dst, c.table, 123456789)
		}
	})
	b.Run("decode", func(b *testing.B) {
		var tape []Value
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if tape, err = schema.Decode(tape, body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("op", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := schema.EnvelopeOp(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
