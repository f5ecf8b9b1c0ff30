package schemas

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

// golden returns one part of the golden file, as canonical text.
func golden(t *testing.T, part string) string {
	t.Helper()
	file, err := os.ReadFile("testdata/debezium-golden-avro.json")
	if err != nil {
		t.Fatal(err)
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(file, &parts); err != nil {
		t.Fatal(err)
	}
	return canonical(t, string(parts[part]))
}

func canonical(t *testing.T, schema string) string {
	t.Helper()
	text, err := Canonical(schema)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// goldenColumns are the columns of the golden VALUE that the neutral types have, in its
// order.
func goldenColumns() []Column {
	array := func(elem Type) Type { return Type{Kind: Array, Elem: &elem} }
	null := func(name string, typ Type) Column { return Column{Name: name, Type: typ, Nullable: true} }
	value := func(text string) Default { return Default{Kind: ValueDefault, Text: text} }
	dec := Type{Kind: Decimal, Precision: 10, Scale: 2}
	return []Column{
		{Name: "id", Type: Type{Kind: Int32}},
		null("i2", Type{Kind: Int16}),
		null("i8", Type{Kind: Int64}),
		null("f4", Type{Kind: Float32}),
		null("f8", Type{Kind: Float64}),
		null("b", Type{Kind: Bool}),
		null("txt", Type{Kind: String}),
		{Name: "def", Type: Type{Kind: String}, Default: value("x")},
		{Name: "defnull", Type: Type{Kind: Int32}, Nullable: true, Default: value("7")},
		null("dec", dec),
		{Name: "decdef", Type: dec, Default: value("1.50")},
		null("money", Type{Kind: Decimal, Scale: 2}),
		null("vdec", Type{Kind: VarDecimal}),
		null("vdec2", Type{Kind: VarDecimal}),
		null("d", Type{Kind: Date}),
		null("t6", Type{Kind: Time, Precision: -1}),
		null("ts3", Type{Kind: Timestamp, Precision: 3}),
		null("ts6", Type{Kind: Timestamp, Precision: 6}),
		null("tstz", Type{Kind: ZonedTimestamp, Precision: -1}),
		{Name: "tstzdef", Type: Type{Kind: ZonedTimestamp}, Default: Default{Kind: FunctionDefault}},
		null("timetz", Type{Kind: ZonedTime}),
		null("iv", Type{Kind: Interval}),
		null("u", Type{Kind: UUID}),
		null("j", Type{Kind: JSON}),
		null("x", Type{Kind: XML}),
		null("en", Type{Kind: Enum, Allowed: []string{"a", "b", "c"}}),
		null("by", Type{Kind: Bytes}),
		null("ia", array(Type{Kind: Int32})),
		null("ta", array(Type{Kind: String})),
		null("na", array(dec)),
		null("tsa", array(Type{Kind: Timestamp, Precision: -1})),
	}
}

// goldenWithout are the golden columns of types that no kind stands for.
var goldenWithout = map[string]bool{"ti": true, "ivs": true, "es": true, "y": true, "bits": true, "hs": true, "pt": true,
	"geo": true, "cd": true, "ct": true, "cts": true, "iso": true, "st": true, "vec": true}

// goldenEnvelope is the golden VALUE without those columns.
func goldenEnvelope(t *testing.T) string {
	t.Helper()
	text := golden(t, "VALUE")
	var doc struct {
		Fields []struct{ Type json.RawMessage }
	}
	var before []json.RawMessage
	var value struct{ Fields []json.RawMessage }
	must(t, json.Unmarshal([]byte(text), &doc))
	must(t, json.Unmarshal(doc.Fields[0].Type, &before))
	must(t, json.Unmarshal(before[1], &value))
	for _, raw := range value.Fields {
		var field struct{ Name string }
		must(t, json.Unmarshal(raw, &field))
		if goldenWithout[field.Name] {
			text = strings.Replace(text, ","+string(raw), "", 1)
		}
	}
	return text
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func naming(prefix string) Naming { return Naming{Prefix: prefix, Connector: "postgresql"} }

func TestDeriveGolden(t *testing.T) {
	table := &Table{Namespace: "public", Name: "t", Columns: goldenColumns(), Key: []int{0}}
	d, err := Derive(table, naming("srv"))
	must(t, err)
	dash, err := Derive(table, naming("my-server"))
	must(t, err)
	txKey, txValue := TransactionSchemas()
	for part, got := range map[string]string{"KEY": d.KeySchema, "DASH": dash.KeySchema, "TX_KEY": txKey, "TX_VALUE": txValue} {
		compareSchemas(t, part, got, golden(t, part))
	}
	compareSchemas(t, "VALUE", d.ValueSchema, goldenEnvelope(t))
	if d.Topic != "srv.public.t" || dash.Topic != "my-server.public.t" {
		t.Errorf("topics %s, %s", d.Topic, dash.Topic)
	}
}

// compareSchemas compares what two schemas say, then their texts, which also have an order.
func compareSchemas(t *testing.T, part, got, want string) {
	t.Helper()
	var g, w any
	must(t, json.Unmarshal([]byte(got), &g))
	must(t, json.Unmarshal([]byte(want), &w))
	if !reflect.DeepEqual(g, w) {
		t.Errorf("%s says something else", part)
	}
	if got != want {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		from := max(0, at-80)
		t.Errorf("%s differs at %d:\n got …%.200s\nwant …%.200s", part, at, got[from:], want[from:])
	}
}
