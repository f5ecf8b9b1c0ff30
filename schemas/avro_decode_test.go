package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"pgregory.net/rapid"
)

// schemaMaker draws schemas, as what encoding/json would unmarshal, and values of them in
// goavro's form.
type schemaMaker struct {
	t     *rapid.T
	names int
}

var primitives = []string{"null", "boolean", "int", "long", "float", "double", "bytes", "string"}

func (m *schemaMaker) schema(depth int) any {
	kinds := append([]string{"enum", "fixed"}, primitives...)
	if depth > 0 {
		kinds = append(kinds, "record", "array", "map", "union", "record", "union")
	}
	switch kind := rapid.SampledFrom(kinds).Draw(m.t, "kind"); kind {
	case "record":
		fields := []any{}
		for i := range rapid.IntRange(1, 4).Draw(m.t, "fields") {
			fields = append(fields, map[string]any{"name": fmt.Sprint("f", i), "type": m.schema(depth - 1)})
		}
		return map[string]any{"type": "record", "name": m.name(), "fields": fields}
	case "array":
		return map[string]any{"type": "array", "items": m.schema(depth - 1)}
	case "map":
		return map[string]any{"type": "map", "values": m.schema(depth - 1)}
	case "union":
		return m.union(depth)
	case "enum":
		return map[string]any{"type": "enum", "name": m.name(), "symbols": []any{"A", "B", "C"}}
	case "fixed":
		return map[string]any{"type": "fixed", "name": m.name(), "size": rapid.IntRange(1, 20).Draw(m.t, "size")}
	default:
		return kind
	}
}

func (m *schemaMaker) name() string {
	m.names++
	return fmt.Sprint("n.N", m.names)
}

func (m *schemaMaker) union(depth int) any {
	branches := []any{}
	for _, p := range rapid.Permutation(primitives).Draw(m.t, "branches")[:rapid.IntRange(1, 3).Draw(m.t, "number")] {
		branches = append(branches, p)
	}
	if s, ok := m.schema(depth - 1).(map[string]any); ok {
		branches = append(branches, s)
	}
	return branches
}

// value draws a value of a schema.
func (m *schemaMaker) value(schema any) any {
	t := m.t
	switch s := schema.(type) {
	case []any:
		branch := rapid.SampledFrom(s).Draw(t, "branch")
		if branch == "null" {
			return nil
		}
		return goavro.Union(branchName(branch), m.value(branch))
	case map[string]any:
		return m.complex(s)
	}
	switch schema {
	case "boolean":
		return rapid.Bool().Draw(t, "boolean")
	case "int":
		return rapid.Int32().Draw(t, "int")
	case "long":
		return rapid.Int64().Draw(t, "long")
	case "float":
		return rapid.Float32().Draw(t, "float")
	case "double":
		return rapid.Float64().Draw(t, "double")
	case "bytes":
		return rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
	case "string":
		return rapid.String().Draw(t, "string")
	}
	return nil
}

func (m *schemaMaker) complex(s map[string]any) any {
	t := m.t
	switch s["type"] {
	case "record":
		out := map[string]any{}
		for _, f := range s["fields"].([]any) {
			field := f.(map[string]any)
			out[field["name"].(string)] = m.value(field["type"])
		}
		return out
	case "array":
		out := []any{}
		for range rapid.IntRange(0, 4).Draw(t, "items") {
			out = append(out, m.value(s["items"]))
		}
		return out
	case "map":
		out := map[string]any{}
		for _, k := range rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "keys") {
			out[k] = m.value(s["values"])
		}
		return out
	case "enum":
		return rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "symbol")
	}
	size := s["size"].(int)
	return rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "fixed")
}

// branchName is how goavro calls a union's branch.
func branchName(schema any) string {
	s, ok := schema.(map[string]any)
	switch {
	case !ok:
		return schema.(string)
	case s["name"] != nil:
		return s["name"].(string)
	}
	return s["type"].(string)
}

// native turns the value at i into goavro's form, given its type in the schema.
func native(tape []Value, i int, t *AvroType) any {
	v := &tape[i]
	if t.Kind == AvroUnion {
		if v.IsNull() {
			return nil
		}
		name := v.Type.Name
		if name == "" {
			name = v.Type.Kind.String()
		}
		return goavro.Union(name, native(tape, i, v.Type))
	}
	switch t.Kind {
	case AvroNull:
		return nil
	case AvroBoolean:
		return v.Bool()
	case AvroInt:
		return int32(v.Int())
	case AvroLong:
		return v.Int()
	case AvroFloat:
		return float32(v.Float())
	case AvroDouble:
		return v.Float()
	case AvroString:
		return string(v.Bytes)
	case AvroBytes, AvroFixed:
		return append([]byte{}, v.Bytes...)
	case AvroEnum:
		return v.Symbol()
	}
	return nativeContainer(tape, i, t)
}

func nativeContainer(tape []Value, i int, t *AvroType) any {
	v, child := &tape[i], i+1
	object, list := map[string]any{}, []any{}
	for n := 0; child < v.End; n++ {
		switch t.Kind {
		case AvroRecord:
			if FieldAt(tape, i, n) != child || FieldNamed(tape, i, t.Fields[n].Name) != child {
				return "fields are not where they should be"
			}
			object[t.Fields[n].Name] = native(tape, child, t.Fields[n].Type)
		case AvroMap:
			key := string(tape[child].Bytes)
			child = tape[child].End
			object[key] = native(tape, child, t.Items)
		default:
			list = append(list, native(tape, child, t.Items))
		}
		child = tape[child].End
	}
	if t.Kind == AvroArray {
		if v.Int() != int64(len(list)) {
			return "an array of another length"
		}
		return list
	}
	return object
}

// Of any schema and value, what goavro encodes is decoded as goavro decodes it; nothing
// shorter or longer is.
func TestDecodeAsGoavro(t *testing.T) {
	var tape []Value
	rapid.Check(t, func(t *rapid.T) {
		m := &schemaMaker{t: t}
		doc := m.schema(3)
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		body := encoded(t, string(text), m.value(doc))
		schema, err := CompileSchema(string(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if tape, err = schema.Decode(tape, body); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		codec, err := goavro.NewCodec(string(text))
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := codec.NativeFromBinary(body)
		if err != nil {
			t.Fatal(err)
		}
		// As JSON too: NaN is equal to none.
		if got := native(tape, 0, schema.Type()); !reflect.DeepEqual(got, want) && fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%s: %v, want %v", text, got, want)
		}
		for n := range body {
			if _, err := schema.Decode(nil, body[:n]); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s: %d of %d bytes: %v", text, n, len(body), err)
			}
		}
		if err := schema.Check(append(body, 0)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("%s: with a byte more: %v", text, err)
		}
	})
}

func compiled(t testing.TB, schema string) *Schema {
	t.Helper()
	s, err := CompileSchema(schema)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDecodeMalformed(t *testing.T) {
	const lowest = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
	for name, c := range map[string]struct{ schema, body, why string }{
		"nothing":               {`"int"`, "", "end in a number"},
		"number without end":    {`"long"`, "\x80\x80", "end in a number"},
		"number of 11 bytes":    {`"long"`, strings.Repeat("\x80", 10) + "\x01", "number beyond 64 bits"},
		"number of 65 bits":     {`"long"`, strings.Repeat("\xff", 9) + "\x02", "number beyond 64 bits"},
		"int of 33 bits":        {`"int"`, "\x80\x80\x80\x80\x10", "int beyond 32 bits"},
		"boolean of 2":          {`"boolean"`, "\x02", "boolean that is neither 0 nor 1"},
		"boolean of nothing":    {`"boolean"`, "", "length beyond the end"},
		"short float":           {`"float"`, "\x00\x00\x00", "length beyond the end"},
		"short double":          {`"double"`, "\x00\x00\x00\x00", "length beyond the end"},
		"short string":          {`"string"`, "\x04a", "length beyond the end"},
		"negative string":       {`"string"`, "\x01", "length beyond the end"},
		"most negative bytes":   {`"bytes"`, lowest, "length beyond the end"},
		"longest bytes":         {`"bytes"`, "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "length beyond the end"},
		"short fixed":           {`{"type":"fixed","name":"F","size":3}`, "ab", "length beyond the end"},
		"symbol too high":       {`{"type":"enum","name":"E","symbols":["A"]}`, "\x02", "symbol that the enum does not have"},
		"symbol negative":       {`{"type":"enum","name":"E","symbols":["A"]}`, "\x01", "symbol that the enum does not have"},
		"branch too high":       {`["null","int"]`, "\x04", "branch that the union does not have"},
		"branch negative":       {`["null","int"]`, "\x01", "branch that the union does not have"},
		"bytes left":            {`"int"`, "\x00\x00", "bytes after the value's end"},
		"array without end":     {`{"type":"array","items":"int"}`, "\x02\x02", "end in a number"},
		"array, lowest count":   {`{"type":"array","items":"int"}`, lowest + "\x00", "too many items"},
		"array, negative size":  {`{"type":"array","items":"int"}`, "\x01\x01\x02\x00", "block of negative size"},
		"array, size too small": {`{"type":"array","items":"int"}`, "\x03\x02\x02\x02\x00", "block of another size than it says"},
		"array, size too large": {`{"type":"array","items":"int"}`, "\x01\x04\x02\x00", "block of another size than it says"},
		"array, no size":        {`{"type":"array","items":"int"}`, "\x01", "end in a number"},
		"map, short key":        {`{"type":"map","values":"int"}`, "\x02\x04a", "length beyond the end"},
		"a billion nulls":       {`{"type":"array","items":"null"}`, "\x80\xa8\xd6\xb9\x07\x00", "too many items"},
		"nulls, block by block": {`{"type":"array","items":"null"}`, strings.Repeat("\x80\x80\x40", 3) + "\x00", "too many items"},
		"deep list":             {`{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}`, strings.Repeat("\x02", 100), "nested too deep"},
		"endless record":        {`{"type":"record","name":"L","fields":[{"name":"l","type":"L"}]}`, "", "nested too deep"},
	} {
		s := compiled(t, c.schema)
		_, err := s.Decode(nil, []byte(c.body))
		if !errors.Is(err, ErrMalformed) || !strings.HasSuffix(err.Error(), ": "+c.why) {
			t.Errorf("%s: %v, want %s", name, err, c.why)
		}
		if check := s.Check([]byte(c.body)); check == nil || check.Error() != err.Error() {
			t.Errorf("%s: %v, but Check: %v", name, err, check)
		}
	}
}

func TestDecodeBlocks(t *testing.T) {
	s := compiled(t, `{"type":"array","items":"int"}`)
	// Two items, then one in a block that says its size, then the end.
	tape, err := s.Decode(nil, []byte{4, 2, 4, 1, 2, 6, 0})
	must(t, err)
	if got := fmt.Sprint(native(tape, 0, s.Type())); got != "[1 2 3]" || tape[0].Int() != 3 || tape[0].End != 4 {
		t.Errorf("%s, %+v", got, tape[0])
	}
}

// A record of 60 levels, each holding the next twice, has 2^60 records in no byte.
func TestDecodeBombs(t *testing.T) {
	nested := strings.Repeat(`{"type":"array","items":`, 70) + `"null"` + strings.Repeat("}", 70)
	if _, err := CompileSchema(nested); err == nil {
		t.Error("a schema that is nested too deep is taken")
	}
	flat := `{"type":"record","name":"All","fields":[{"name":"r0","type":{"type":"record","name":"R0","fields":[]}}`
	for i := 1; i <= 60; i++ {
		flat += fmt.Sprintf(`,{"name":"r%d","type":{"type":"record","name":"R%d","fields":[{"name":"a","type":"R%d"},{"name":"b","type":"R%d"}]}}`, i, i, i-1, i-1)
	}
	limits := Limits{Bytes: 1000, Values: 10_000, Depth: 1000}
	s, err := CompileSchemaWithin(flat+`]}`, limits)
	must(t, err)
	begin := time.Now()
	tape, err := s.Decode(nil, nil)
	if !errors.Is(err, ErrMalformed) || len(tape) > limits.Values {
		t.Errorf("%d values, %v", len(tape), err)
	}
	if err := s.Check(nil); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %s to refuse", took)
	}
	for _, err := range []error{s.Check(make([]byte, 1001)), compiled(t, `"bytes"`).Check(make([]byte, 64<<20+1))} {
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "bytes, at most") {
			t.Error(err)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	field := func(rest string) string {
		return `{"type":"record","name":"R","fields":[{"name":"f",` + rest + `}]}`
	}
	for schema, want := range map[string]string{
		``:                       "EOF",
		`{`:                      "unexpected EOF",
		`"int" "int"`:            "text after the schema's end",
		`7`:                      "a type is a name",
		`{}`:                     "a type is a name",
		`"nothing"`:              `unknown type "nothing"`,
		`["int","int"]`:          "two branches of one union are int",
		`["int",["null"]]`:       "a union directly in a union",
		`["int",{"type":["a"]}]`: `unknown type "a"`,
		`[{"type":"array","items":"int"},{"type":"array","items":"long"}]`: "two branches of one union are array",
		`{"type":"array"}`:                                                                             "a type is a name",
		`{"type":"map","values":"x"}`:                                                                  `unknown type "x"`,
		`{"type":"record","name":"1","fields":[]}`:                                                     `a record cannot be called "1"`,
		`{"type":"record","fields":[]}`:                                                                `a record cannot be called ""`,
		`{"type":"record","name":"a.","fields":[]}`:                                                    `a record cannot be called "a."`,
		`{"type":"record","name":"int","fields":[]}`:                                                   "type int is defined twice",
		`{"type":"record","name":"R"}`:                                                                 "record R has no list of fields",
		`{"type":"record","name":"R","fields":[],"aliases":7}`:                                         "type R: aliases is not a list of names",
		`{"type":"record","name":"R","fields":[],"aliases":[7]}`:                                       "type R: aliases is not a list of names",
		`{"type":"record","name":"R","fields":[7]}`:                                                    `a field cannot be called ""`,
		`{"type":"record","name":"R","fields":[{"name":"a-b","type":"int"}]}`:                          `a field cannot be called "a-b"`,
		`{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}`:  "field a is there twice",
		field(`"type":{"type":"record","name":"R","fields":[]}`):                                       "type R is defined twice",
		field(`"type":"S"`):                                                                            `record R: field f: unknown type "S"`,
		field(`"type":"int","aliases":"x"`):                                                            "record R: field f: aliases is not a list of names",
		field(`"type":"int","default":"x"`):                                                            "default x is not of its type",
		field(`"type":"int","default":1.5`):                                                            "default 1.5 is not of its type",
		field(`"type":"int","default":2147483648`):                                                     "is not of its type",
		field(`"type":"long","default":1e19`):                                                          "is not of its type",
		field(`"type":"double","default":"NaN"`):                                                       "is not of its type",
		field(`"type":"string","default":null`):                                                        "is not of its type",
		field(`"type":"boolean","default":0`):                                                          "is not of its type",
		field(`"type":"null","default":0`):                                                             "is not of its type",
		field(`"type":"bytes","default":"\u0100"`):                                                     "is not of its type",
		field(`"type":["null","int"],"default":"x"`):                                                   "is not of its type",
		field(`"type":{"type":"array","items":"int"},"default":["x"]`):                                 "is not of its type",
		field(`"type":{"type":"map","values":"int"},"default":{"a":"x"}`):                              "is not of its type",
		field(`"type":{"type":"map","values":"int"},"default":[]`):                                     "is not of its type",
		field(`"type":{"type":"fixed","name":"F","size":2},"default":"abc"`):                           "is not of its type",
		field(`"type":{"type":"enum","name":"E","symbols":["A"]},"default":"B"`):                       "is not of its type",
		field(`"type":{"type":"record","name":"S","fields":[{"name":"x","type":"int"}]},"default":{}`): "is not of its type",
		`{"type":"enum","name":"E"}`:                                                                   "",
		`{"type":"enum","name":"E","symbols":"A"}`:                                                     "symbols is not a list of names",
		`{"type":"enum","name":"E","symbols":["A","A"]}`:                                               `symbol "A" is no name or there twice`,
		`{"type":"enum","name":"E","symbols":["a b"]}`:                                                 `symbol "a b" is no name or there twice`,
		`{"type":"enum","name":"E","symbols":["A"],"default":"B"}`:                                     "default B is not among its symbols",
		`{"type":"enum","name":"E","symbols":["A"],"default":7}`:                                       "default 7 is not among its symbols",
		`{"type":"fixed","name":"F","size":-1}`:                                                        "size -1 is not a number of bytes",
		`{"type":"fixed","name":"F","size":"4"}`:                                                       "size 4 is not a number of bytes",
		strings.Repeat(`{"type":`, 70) + `"int"` + strings.Repeat("}", 70):                             "nested deeper than 64",
		strings.Repeat(" ", maxSchemaBytes) + `"int"`:                                                  "at most 1048576 are allowed",
	} {
		_, err := CompileSchema(schema)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", schema, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %s", schema, err, want)
		}
	}
}

// What the specification allows, goavro or not.
func TestCompileAllows(t *testing.T) {
	for _, schema := range []string{
		`{"type":{"type":"int"}}`,
		`{"type":["null","int"]}`,
		`{"type":"record","name":"my-ns.R","fields":[{"name":"r","type":["null","R"]},{"name":"s","type":["null","my-ns.R"]}]}`,
		`{"type":"record","name":"R","namespace":"a","fields":[{"name":"x","type":{"type":"fixed","name":"F","namespace":"","size":1}},{"name":"y","type":"F"}]}`,
		`{"type":"record","name":"R","fields":[{"name":"x","type":["null","int"],"default":7},{"name":"y","type":["int","null"],"default":null},
			{"name":"r","type":{"type":"map","values":"R"},"default":{"a":{"r":{}}}},{"name":"f","type":"float","default":1},
			{"name":"e","type":{"type":"enum","name":"E","symbols":["A"]},"default":"A"},{"name":"b","type":"bytes","default":"\u00ff"},
			{"name":"l","type":{"type":"array","items":"E"},"default":["A"]},{"name":"t","type":"boolean","default":true}]}`,
		`{"type":"bytes","logicalType":"decimal","precision":"x"}`,
	} {
		if _, err := CompileSchema(schema); err != nil {
			t.Errorf("%s: %v", schema, err)
		}
	}
	d := compiled(t, `{"type":"bytes","logicalType":"decimal","precision":10,"scale":2,"connect.name":"x"}`).Type()
	if d.Logical != "decimal" || d.Precision != 10 || d.Scale != 2 || d.ConnectName != "x" {
		t.Errorf("%+v", d)
	}
	if got := compiled(t, golden(t, "VALUE")).Type().Name; got != "srv.public.t.Envelope" {
		t.Error(got)
	}
}

// fuzzSchemas are the schemas that FuzzDecode chooses from.
func fuzzSchemas(f *testing.F) []*Schema {
	limits := Limits{Bytes: 1 << 16, Values: 1 << 12, Depth: 20}
	_, tx := TransactionSchemas()
	var out []*Schema
	for _, text := range []string{goldenSchema(f), tx,
		`{"type":"record","name":"L","fields":[{"name":"v","type":["null","double",{"type":"map","values":{"type":"array","items":["null","L"]}}]},
			{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},{"name":"f","type":{"type":"fixed","name":"F","size":3}},{"name":"b","type":"boolean"},{"name":"g","type":"float"}]}`} {
		s, err := CompileSchemaWithin(text, limits)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func FuzzDecode(f *testing.F) {
	all := fuzzSchemas(f)
	row, err := newChange().append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), row)
	f.Add(uint8(1), AppendTransactionEnd(nil, "7:100", []CollectionCount{{"a.b", 3}}, 5))
	f.Add(uint8(2), []byte{4, 2, 2, 'a', 3, 4, 0, 0, 0, 0, 2, 'x', 'y', 'z', 1, 0, 0, 0, 0})
	f.Add(uint8(2), []byte{2, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 'x', 'y', 'z', 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		s := all[int(which)%len(all)]
		tape, err := s.Decode(nil, body)
		if check := s.Check(body); (check == nil) != (err == nil) {
			t.Fatalf("Decode: %v, Check: %v", err, check)
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if tape[0].End != len(tape) || len(tape) > 2*s.limits.Values {
			t.Fatalf("%d values, the first ends at %d", len(tape), tape[0].End)
		}
		for i := range tape { // children end where their parent does
			child := i + 1
			for child < tape[i].End {
				child = tape[child].End
			}
			if child != tape[i].End {
				t.Fatalf("value %d of %d ends at %d, its last child at %d", i, len(tape), tape[i].End, child)
			}
		}
		if op, err := s.EnvelopeOp(body); err == nil && !bytes.Contains(body, []byte{2, op}) {
			t.Fatalf("op %q", op)
		}
	})
}

func FuzzCompile(f *testing.F) {
	f.Add(goldenSchema(f))
	f.Add(`{"type":"enum","name":"E","symbols":["A"],"default":"A","aliases":["x.F"]}`)
	f.Add(`{"type":"record","name":"a.L","fields":[{"name":"n","type":["null","L"],"default":null}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := CompileSchema(text)
		if err != nil {
			return
		}
		if reasons, err := CheckCompatible(text, text); err != nil || len(reasons) > 0 {
			t.Fatalf("it cannot read itself: %q, %v", reasons, err)
		}
		again, err := Canonical(text)
		if err != nil && strings.Contains(err.Error(), "nested deeper") { // in an attribute
			return
		}
		must(t, err)
		if _, err := CompileSchema(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if s.Check(nil) == nil && s.Check([]byte{0}) == nil {
			t.Fatal("two bodies of different length begin alike")
		}
	})
}
