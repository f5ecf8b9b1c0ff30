package schemas

import (
	"encoding/json"
	"errors"
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

func TestNamesGolden(t *testing.T) {
	var rows [][4]string
	must(t, json.Unmarshal([]byte(golden(t, "NAME_ADJUST")), &rows))
	rows = append(rows, // not in the file, from the code of SchemaNameAdjuster
		[4]string{"ADJUST", "srv.public.order_items.Key", "avro=srv.public.order_items.Key", "avro_unicode=srv.public.order_u005fitems.Key"},
		[4]string{"ADJUST", "srv.1public.t.Key", "avro=srv.1public.t.Key", "avro_unicode=srv.1public.t.Key"},
		[4]string{"FIELD", "_a", "avro=_a", "avro_unicode=_u005fa"},
		[4]string{"FIELD", "łódź", "avro=__d_", "avro_unicode=_u142_u00f3d_u17a"},
		[4]string{"FIELD", "a😀", "avro=a__", "avro_unicode=a_ud83d_ude00"},
		[4]string{"FIELD", "", "avro=", "avro_unicode="})
	for _, r := range rows {
		for _, want := range r[2:] {
			adjust, want, _ := strings.Cut(want, "=")
			n := Naming{Adjust: adjust}
			got := n.fieldName(r[1])
			if r[0] == "ADJUST" {
				got = n.fullName(r[1])
			}
			if got != want {
				t.Errorf("%s %s %s: %s, want %s", r[0], adjust, r[1], got, want)
			}
		}
		if n := (Naming{Adjust: AdjustNone}); n.fullName(r[1]) != r[1] || n.fieldName(r[1]) != r[1] {
			t.Errorf("%s is adjusted without being asked", r[1])
		}
	}
}

func TestTopicName(t *testing.T) {
	for want, in := range map[string][3]string{
		"srv.public.t":          {"srv", "public", "t"},
		"my-srv.a_b.T-1":        {"my-srv", "a b", "T-1"},
		"s.public._quoted__x.y": {"s", "public", `"quoted"$x.y`},
		"s.p.____":              {"s", "p", "ä😀é"},
	} {
		if got := TopicName(in[0], in[1], in[2]); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// valueField derives a table of one column and returns that column's field.
func valueField(t *testing.T, c Column) string {
	t.Helper()
	c.Name = "c"
	d, err := Derive(&Table{Namespace: "public", Name: "t", Columns: []Column{c}}, naming("srv"))
	must(t, err)
	if _, err := CompileSchema(d.ValueSchema); err != nil {
		t.Error(err)
	}
	_, rest, _ := strings.Cut(d.ValueSchema, `"name":"Value","fields":[`)
	field, _, ok := strings.Cut(rest, `],"connect.name":"srv.public.t.Value"`)
	if !ok || d.KeySchema != "" {
		t.Fatalf("key %q, value %s", d.KeySchema, d.ValueSchema)
	}
	return strings.TrimSuffix(strings.TrimPrefix(field, `{"name":"c","type":`), "}")
}

func TestNullabilityAndDefaults(t *testing.T) {
	integer, function := Type{Kind: Int32}, Default{Kind: FunctionDefault}
	value := func(s string) Default { return Default{Kind: ValueDefault, Text: s} }
	array := Type{Kind: Array, Elem: &integer}
	const vsd = `{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}],"connect.doc":"Variable scaled decimal","connect.version":1,"connect.name":"io.debezium.data.VariableScaleDecimal"}`
	for _, c := range []struct {
		column Column
		want   string
	}{
		{Column{Type: integer}, `"int"`},
		{Column{Type: integer, Nullable: true}, `["null","int"],"default":null`},
		{Column{Type: integer, Default: value("7")}, `{"type":"int","connect.default":7},"default":7`},
		{Column{Type: integer, Nullable: true, Default: value("-7")}, `[{"type":"int","connect.default":-7},"null"],"default":-7`},
		{Column{Type: integer, Default: function}, `{"type":"int","connect.default":0},"default":0`},
		{Column{Type: integer, Nullable: true, Default: function}, `[{"type":"int","connect.default":0},"null"],"default":0`},
		{Column{Type: integer, Nullable: true, Default: value("many")}, `["null","int"],"default":null`},
		{Column{Type: integer, Default: value("2147483648")}, `"int"`},
		{Column{Type: Type{Kind: Int16}, Default: value("3")}, `{"type":"int","connect.default":3,"connect.type":"int16"},"default":3`},
		{Column{Type: array, Default: value("{}")}, `{"type":"array","items":["null","int"]}`},
		{Column{Type: array, Nullable: true, Default: function}, `["null",{"type":"array","items":["null","int"]}],"default":null`},
		{Column{Type: Type{Kind: VarDecimal}, Default: value("1")}, vsd},
		{Column{Type: Type{Kind: VarDecimal}, Nullable: true, Default: function}, `["null",` + vsd + `],"default":null`},
		{Column{Type: Type{Kind: Array, Elem: &Type{Kind: Enum, Allowed: []string{"x", `"`}}}},
			`{"type":"array","items":{"type":"string","connect.version":1,"connect.parameters":{"allowed":"x,\""},"connect.name":"io.debezium.data.Enum"}}`},
		{Column{Type: Type{Kind: Array, Elem: &array}}, `{"type":"array","items":["null",{"type":"array","items":["null","int"]}]}`},
	} {
		if got := valueField(t, c.column); got != c.want {
			t.Errorf("%+v:\n got %s\nwant %s", c.column, got, c.want)
		}
	}
}

// none is the default of a type that has none.
const none = "none"

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		typ  Type
		text string // of a value; "now()": a function
		want string // as it stands in the schema
	}{
		{Type{Kind: Bool}, "true", "true"},
		{Type{Kind: Bool}, "t", none},
		{Type{Kind: Bool}, "now()", "false"},
		{Type{Kind: Int64}, "9223372036854775807", "9223372036854775807"},
		{Type{Kind: Int64}, "9223372036854775808", none},
		{Type{Kind: Int64}, "1.5", none},
		{Type{Kind: Float64}, "1", "1.0"},
		{Type{Kind: Float64}, "-0.001", "-0.001"},
		{Type{Kind: Float64}, "9999999.5", "9999999.5"},
		{Type{Kind: Float64}, "10000000", "1.0E7"},
		{Type{Kind: Float64}, "0.00012", "1.2E-4"},
		{Type{Kind: Float64}, "NaN", none},
		{Type{Kind: Float64}, "Infinity", none},
		{Type{Kind: Float64}, "now()", "0.0"},
		{Type{Kind: Float32}, "0.1", "0.1"},
		{Type{Kind: Float32}, "1e39", none},
		{Type{Kind: Decimal, Precision: 10, Scale: 2}, "1.5", "\"\\u0000\u0096\""},
		{Type{Kind: Decimal, Precision: 10, Scale: 2}, "-0.01", `"` + "\u00ff" + `"`},
		{Type{Kind: Decimal, Precision: 10, Scale: 2}, "1.005", none},
		{Type{Kind: Decimal, Precision: 10, Scale: 2}, "NaN", none},
		{Type{Kind: Decimal, Precision: 10, Scale: 2}, "now()", `"\u0000"`},
		{Type{Kind: Decimal, Precision: 300}, "1" + strings.Repeat("0", 250), ""}, // longer than a length byte
		{Type{Kind: String}, "it's \"x\"\n\u0001ü", `"it's \"x\"\n\u0001ü"`},
		{Type{Kind: String}, "\b\t\f\r\\", `"\b\t\f\r\\"`},
		{Type{Kind: String}, "\xff", none},
		{Type{Kind: String}, "now()", `""`},
		{Type{Kind: Bytes}, `\x00ff7b`, "\"\\u0000\u00ff{\""},
		{Type{Kind: Bytes}, `00`, none},
		{Type{Kind: Bytes}, `\xfg`, none},
		{Type{Kind: Bytes}, "now()", none},
		{Type{Kind: JSON}, `{"a": 1}`, `"{\"a\": 1}"`},
		{Type{Kind: JSON}, "now()", `"{}"`},
		{Type{Kind: XML}, "now()", `""`},
		{Type{Kind: UUID}, "76019D1A-ad2e-4b22-96e9-1a6d6543c818", `"76019d1a-ad2e-4b22-96e9-1a6d6543c818"`},
		{Type{Kind: UUID}, "76019d1aad2e4b2296e91a6d6543c818----", none},
		{Type{Kind: UUID}, "now()", `"00000000-0000-0000-0000-000000000000"`},
		{Type{Kind: Enum, Allowed: []string{"a"}}, "a", `"a"`},
		{Type{Kind: Enum, Allowed: []string{"a"}}, "now()", none},
		{Type{Kind: Date}, "2000-01-01", "10957"},
		{Type{Kind: Date}, "1969-12-31", "-1"},
		{Type{Kind: Date}, "infinity", none},
		{Type{Kind: Date}, "12:00:00", none},
		{Type{Kind: Date}, "now()", "0"},
		{Type{Kind: Time, Precision: 3}, "01:02:03.456", "3723456"},
		{Type{Kind: Time, Precision: -1}, "01:02:03.456789", "3723456789"},
		{Type{Kind: Time}, "01:02", "3720000"},
		{Type{Kind: Time}, "2000-01-01", none},
		{Type{Kind: Time}, "now()", "0"},
		{Type{Kind: Timestamp, Precision: 3}, "2000-01-01 00:00:01", "946684801000"},
		{Type{Kind: Timestamp, Precision: 6}, "1969-12-31T23:59:59.999999", "-1"},
		{Type{Kind: Timestamp, Precision: 0}, "2000-01-01", "946684800000"},
		{Type{Kind: ZonedTimestamp, Precision: -1}, "2000-01-01 05:30:00+05:30", `"2000-01-01T00:00:00.000000Z"`},
		{Type{Kind: ZonedTimestamp, Precision: 0}, "2000-01-01 00:00:00+00", `"2000-01-01T00:00:00Z"`},
		{Type{Kind: ZonedTimestamp, Precision: -1}, "now()", `"1970-01-01T00:00:00.000000Z"`},
		{Type{Kind: ZonedTime}, "12:00:00", none},
		{Type{Kind: ZonedTime}, "now()", none},
		{Type{Kind: Interval}, "86400000000", "86400000000"},
		{Type{Kind: Interval}, "now()", "0"},
	} {
		d := Default{Kind: ValueDefault, Text: c.text}
		if c.text == "now()" {
			d = Default{Kind: FunctionDefault}
		}
		// NOT NULL: the default stands in the type and in the field.
		field := valueField(t, Column{Type: c.typ, Default: d})
		typ, got, ok := strings.Cut(field, `,"default":`)
		if !ok {
			got = none
		}
		if c.want != "" && got != c.want || ok != strings.Contains(typ, `"connect.default":`+got) {
			t.Errorf("%+v default %s: %s, want %s, in %s", c.typ, c.text, got, c.want, field)
		}
		// nullable: the branch that has the default comes first, and Union agrees.
		nullable := Column{Type: c.typ, Default: d, Nullable: true}
		field = valueField(t, nullable)
		union, null, value := nullable.Union()
		if first := strings.HasPrefix(field, `["null",`); !union || first != (null == 0) || first != (value == 1) || first == ok {
			t.Errorf("%+v default %s: union %v, null %d, value %d, in %s", c.typ, c.text, union, null, value, field)
		}
	}
}

func TestDecimalsWithinAvro(t *testing.T) {
	for want, typ := range map[string]Type{
		`"scale":0,"precision":5,`:  {Kind: Decimal, Precision: 3, Scale: -2},
		`"scale":5,"precision":5,`:  {Kind: Decimal, Precision: 3, Scale: 5},
		`"scale":2,"precision":64,`: {Kind: Decimal, Scale: 2},
	} {
		if got := valueField(t, Column{Type: typ}); !strings.Contains(got, want) {
			t.Errorf("%+v: %s, want %s", typ, got, want)
		}
	}
}

func TestDeriveNames(t *testing.T) {
	table := &Table{Namespace: "my schema", Name: "1-t", Columns: []Column{{Name: "my-col", Type: Type{Kind: Int32}}}, Key: []int{0}}
	n := naming("1my-srv")
	n.Adjust = AdjustAvro
	d, err := Derive(table, n)
	must(t, err)
	want := `{"type":"record","name":"Key","namespace":"_1my_srv.my_schema.1_t","fields":[{"name":"my_col","type":"int"}],"connect.name":"_1my_srv.my_schema.1_t.Key"}`
	if d.KeySchema != want || d.Topic != "1my-srv.my_schema.1-t" {
		t.Errorf("topic %s, key %s, want %s", d.Topic, d.KeySchema, want)
	}
	n.Adjust = AdjustUnicode
	d, err = Derive(table, n)
	must(t, err)
	want = `{"type":"record","name":"Key","namespace":"_u0031my_u002dsrv.my_u005fschema.1_u002dt","fields":[{"name":"my_u002dcol","type":"int"}],"connect.name":"_u0031my_u002dsrv.my_u005fschema.1_u002dt.Key"}`
	if d.KeySchema != want {
		t.Errorf("key %s, want %s", d.KeySchema, want)
	}
}

// A composite key is in key order, which need not be the columns'.
func TestDeriveCompositeKey(t *testing.T) {
	table := &Table{Namespace: "public", Name: "t", Key: []int{2, 0}, Columns: []Column{
		{Name: "a", Type: Type{Kind: VarDecimal}}, {Name: "b", Type: Type{Kind: String}},
		{Name: "c", Type: Type{Kind: String}, Default: Default{Kind: ValueDefault, Text: "x"}}}}
	d, err := Derive(table, naming("srv"))
	must(t, err)
	if want := `"fields":[{"name":"c","type":{"type":"string","connect.default":"x"},"default":"x"},{"name":"a","type":{"type":"record","name":"VariableScaleDecimal"`; !strings.Contains(d.KeySchema, want) {
		t.Errorf("%s lacks %s", d.KeySchema, want)
	}
}

func TestDeriveRefuses(t *testing.T) {
	integer := Type{Kind: Int32}
	deep := integer
	for range 7 {
		inner := deep
		deep = Type{Kind: Array, Elem: &inner}
	}
	for want, c := range map[string]struct {
		columns []Column
		key     []int
		naming  Naming
	}{
		`column "my-col" cannot be a field name in Avro`: {columns: []Column{{Name: "my-col", Type: integer}}, naming: naming("s")},
		`columns "a-b" and "a_b" both become field a_b`:  {columns: []Column{{Name: "a-b", Type: integer}, {Name: "a_b", Type: integer}}, naming: Naming{Prefix: "s", Connector: "postgresql", Adjust: AdjustAvro}},
		`column "" cannot`:                               {columns: []Column{{Name: "", Type: integer}}, naming: Naming{Prefix: "s", Connector: "postgresql", Adjust: AdjustAvro}},
		`unknown kind 0`:                                 {columns: []Column{{Name: "a"}}, naming: naming("s")},
		`unknown kind 99`:                                {columns: []Column{{Name: "a", Type: Type{Kind: 99}}}, naming: naming("s")},
		`column "a": array without elements' type`:       {columns: []Column{{Name: "a", Type: Type{Kind: Array}}}, naming: naming("s")},
		`nested too deep`:                                {columns: []Column{{Name: "a", Type: deep}}, naming: naming("s")},
		`key column 1 of 1`:                              {columns: []Column{{Name: "a", Type: integer}}, key: []int{1}, naming: naming("s")},
		`no source block is known for connector "mysql"`: {naming: Naming{Prefix: "s", Connector: "mysql"}},
		`unknown name adjustment "latin"`:                {naming: Naming{Prefix: "s", Connector: "postgresql", Adjust: "latin"}},
	} {
		_, err := Derive(&Table{Namespace: "public", Name: "t", Columns: c.columns, Key: c.key}, c.naming)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		var named interface {
			Fatal() bool
			Hint() string
		}
		if strings.Contains(want, "field") && (!errors.As(err, &named) || !named.Fatal() || named.Hint() == "") {
			t.Errorf("%v gives no hint", err)
		}
	}
}

// A table is stored as JSON and must come back as it was.
func TestTableAsJSON(t *testing.T) {
	table := &Table{Namespace: "public", Name: "t", Columns: goldenColumns(), Key: []int{0}}
	text, err := json.Marshal(table)
	must(t, err)
	var back Table
	must(t, json.Unmarshal(text, &back))
	if !reflect.DeepEqual(*table, back) {
		t.Errorf("%s comes back as %+v", text, back)
	}
	again, err := json.Marshal(&back)
	must(t, err)
	if string(again) != string(text) {
		t.Errorf("%s, then %s", text, again)
	}
}

func TestCanonical(t *testing.T) {
	got := canonical(t, " { \"type\" : [ \"null\" , {\"type\":\"int\"} ], \"x\": 1.50e2, \"b\": true , \"n\":null, \"s\":\"\\u0041\\/\\u0001\", \"e\":[ ],\"o\":{ } }\n")
	if want := `{"type":["null",{"type":"int"}],"x":1.50e2,"b":true,"n":null,"s":"A/\u0001","e":[],"o":{}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if again := canonical(t, got); again != got {
		t.Errorf("%s becomes %s", got, again)
	}
	for _, bad := range []string{"", "{", "[", `{"a"`, `{"a":`, `[1,`, `{} {}`, `{]`, "int", strings.Repeat("[", 300) + strings.Repeat("]", 300),
		`"` + strings.Repeat("x", maxSchemaBytes) + `"`} {
		if got, err := Canonical(bad); err == nil {
			t.Errorf("%.40q becomes %.40q", bad, got)
		}
	}
}
