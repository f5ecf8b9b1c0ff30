package show

import (
	"math"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
)

// encode makes Avro of a native value with a schema as goavro takes it.
func encode(t *testing.T, schema string, v any) []byte {
	t.Helper()
	c, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.BinaryFromNative(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestJSON(t *testing.T) {
	record := `{"type":"record","name":"V","namespace":"a.b","fields":[
		{"name":"z","type":"int"},
		{"name":"a","type":["null",{"type":"string","connect.name":"io.debezium.data.Uuid"}],"default":null},
		{"name":"self","type":["null","V"],"default":null}]}`
	variable := `{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}]}`
	for _, c := range []struct {
		name, schema, plain string // plain: the schema to encode with, if another
		value               any
		want                string
	}{
		{"null", `"null"`, "", nil, `null`},
		{"int", `"int"`, "", 7, `7`},
		{"long", `{"type":"long","connect.name":"io.debezium.time.MicroTimestamp"}`, "", int64(math.MaxInt64), `9223372036854775807`},
		{"bool", `"boolean"`, "", true, `true`},
		{"string", `"string"`, "", "<a> & \"b\"\n", `"<a> & \"b\"\n"`},
		{"bytes", `"bytes"`, "", []byte{0, 255}, `"AP8="`},
		{"fixed", `{"type":"fixed","name":"f","size":2}`, "", []byte{1, 2}, `"AQI="`},
		{"enum", `{"type":"enum","name":"e","symbols":["A","B"]}`, "", "B", `"B"`},
		{"double", `"double"`, "", 1.5, `1.5`},
		{"float", `"float"`, "", float32(0.1), `0.1`},
		{"nan", `"double"`, "", math.NaN(), `"NaN"`},
		{"infinity", `"double"`, "", math.Inf(1), `"Inf"`},
		{"decimal", `{"type":"bytes","logicalType":"decimal","precision":64,"scale":2}`, `"bytes"`, []byte{0x00, 0x96}, `"1.50"`},
		{"negative decimal", `{"type":"bytes","logicalType":"decimal","precision":9,"scale":4}`, `"bytes"`, []byte{0xff}, `"-0.0001"`},
		{"decimal without scale", `{"type":"bytes","logicalType":"decimal","precision":9}`, `"bytes"`, []byte{0x01, 0x00}, `"256"`},
		{"empty decimal", `{"type":"bytes","logicalType":"decimal","precision":9,"scale":1}`, `"bytes"`, []byte{}, `"0.0"`},
		{"fixed decimal", `{"type":"fixed","name":"d","size":1,"logicalType":"decimal","precision":2,"scale":1}`, `{"type":"fixed","name":"d","size":1}`, []byte{0x7f}, `"12.7"`},
		{"variable scale", variable, "", map[string]any{"scale": 3, "value": []byte{0x30, 0x39}}, `"12.345"`},
		{"array", `{"type":"array","items":["null","int"]}`, "", []any{nil, goavro.Union("int", 5)}, `[null,5]`},
		{"map", `{"type":"map","values":"string"}`, "", map[string]any{"b": "2", "a": "1"}, `{"a":"1","b":"2"}`},
		{"order of fields", record, "", map[string]any{"z": 1, "a": goavro.Union("string", "x"), "self": goavro.Union("a.b.V", map[string]any{"z": 2, "a": nil, "self": nil})},
			`{"z":1,"a":"x","self":{"z":2,"a":null,"self":null}}`},
		{"union of decimal", `["null",{"type":"bytes","logicalType":"decimal","precision":4,"scale":1}]`, `["null","bytes"]`, goavro.Union("bytes", []byte{15}), `"1.5"`},
		{"names that only Connect allows", `{"type":"record","name":"my-topic.V","fields":[{"name":"a-b","type":["null",{"type":"enum","name":"my-topic.e","symbols":["x-y","z"]}]},{"name":"c","type":["null","my-topic.e"]}]}`,
			`{"type":"record","name":"V","fields":[{"name":"a","type":["null",{"type":"enum","name":"e","symbols":["x","z"]}]},{"name":"c","type":["null","e"]}]}`,
			map[string]any{"a": goavro.Union("e", "x"), "c": goavro.Union("e", "z")}, `{"a-b":"x-y","c":"z"}`},
		{"logical time stays a number", `{"type":"long","logicalType":"timestamp-micros"}`, `"long"`, int64(1), `1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Parse(c.schema)
			if err != nil {
				t.Fatal(err)
			}
			plain := c.plain
			if plain == "" {
				plain = c.schema
			}
			got, err := s.JSON(encode(t, plain, c.value))
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
}

// Bytes that are not the schema's Avro are an error, whatever they look like.
func TestWrongAvro(t *testing.T) {
	s, err := Parse(`{"type":"record","name":"V","fields":[{"name":"s","type":"string"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"empty": "", "cut": "\x0aab", "trailing": "\x02aX", "negative length": "\x01a", "huge length": "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if got, err := s.JSON([]byte(body)); err == nil || got != nil {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
}

func TestWrongSchemas(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": `{`, "number": `7`, "unknown": `"whatever"`, "field": `{"type":"record","name":"r","fields":[1]}`,
		"deep": strings.Repeat(`{"type":"array","items":`, 100) + `"int"` + strings.Repeat("}", 100),
	} {
		if _, err := Parse(text); err == nil || !strings.HasPrefix(err.Error(), "parse schema: ") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// No bytes make the renderer panic, and what it accepts is valid JSON.
func FuzzJSON(f *testing.F) {
	s, err := Parse(`{"type":"record","name":"V","fields":[{"name":"a","type":["null","string",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},
		{"name":"l","type":{"type":"array","items":"double"}},{"name":"m","type":{"type":"map","values":["null","V"]}}]}`)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0, 0})
	f.Add([]byte{2, 2, 'a', 0, 0})
	f.Add([]byte{4, 2, 7, 2, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := s.JSON(body)
		if err == nil && !valid(text) {
			t.Errorf("%x: %s is not JSON", body, text)
		}
	})
}
