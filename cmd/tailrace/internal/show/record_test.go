package show

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

func valid(text []byte) bool { return json.Valid(text) }

// fakeSchemas is a registry with one schema, one that is broken, and one that it fails on.
type fakeSchemas struct{ asked int }

var errDown = errors.New("no route")

func (f *fakeSchemas) SchemaByID(_ context.Context, id int32) (string, error) {
	f.asked++
	switch id {
	case 1:
		return `"string"`, nil
	case 2:
		return `{"type":"nonsense"}`, nil
	case 3:
		return "", errDown
	}
	return "", &registry.Error{Status: 404, Code: 40403}
}

// record puts one record through a batch, as it comes from a broker.
func record(t *testing.T, key, value []byte, headers ...stream.RecordHeader) *stream.Record {
	t.Helper()
	var b stream.Batch
	if err := b.Append(1767323045678, key, value, headers); err != nil {
		t.Fatal(err)
	}
	if err := b.Seal(stream.None, false); err != nil {
		t.Fatal(err)
	}
	var d stream.Decoder
	d.Reset(b.Stamp(1, 0, 0))
	if !d.NextBatch() || !d.NextRecord() {
		t.Fatal(d.Err())
	}
	return d.Record()
}

func TestRecord(t *testing.T) {
	mark := stream.AppendMark(nil, stream.Mark{Place: stream.Place{Epoch: 1, Pos: 99, Row: 2}, N: 7})
	end := stream.AppendMark(nil, stream.Mark{Flags: stream.FlagEnd | stream.FlagBackfill, N: 1})
	end = stream.AppendEndParts(end, []stream.EndPart{{Topic: "a", Partition: 3, Row: 4}})
	framed := func(id byte, body string) []byte { return append([]byte{0, 0, 0, 0, id}, body...) }
	const head = `{"topic":"t","partition":1,"offset":0,"timestamp":"2026-01-02T03:04:05.678Z",`
	for _, c := range []struct {
		name string
		r    *stream.Record
		want string
	}{
		{"all", record(t, framed(1, "\x02k"), framed(1, "\x02v"), stream.RecordHeader{Key: stream.MarkKey, Value: mark}, stream.RecordHeader{Key: "h", Value: []byte("x")}),
			`"key":"k","key_schema_id":1,"value":"v","value_schema_id":1,"tombstone":false,"tailrace":{"epoch":1,"file":0,"pos":99,"row":2,"n":7},"headers":{"h":"x"}}`},
		{"tombstone", record(t, framed(1, "\x02k"), nil), `"key":"k","key_schema_id":1,"value":null,"tombstone":true}`},
		{"no key", record(t, nil, framed(1, "\x02v")), `"key":null,"value":"v","value_schema_id":1,"tombstone":false}`},
		{"end", record(t, nil, nil, stream.RecordHeader{Key: stream.MarkKey, Value: end}),
			`"key":null,"value":null,"tombstone":true,"tailrace":{"epoch":0,"file":0,"pos":0,"row":0,"n":1,"flags":["backfill","end"],"parts":[{"topic":"a","partition":3,"row":4}]}}`},
		{"text is no Avro", record(t, []byte("key"), []byte("value as text")),
			`"key":null,"value":null,"tombstone":false,"error":"key: not Avro in a registry's frame (a zero byte and a schema id of four); value: not Avro in a registry's frame (a zero byte and a schema id of four)"}`},
		{"wrong Avro", record(t, nil, framed(1, "\x08v")), `"key":null,"value":null,"value_schema_id":1,"tombstone":false,"error":"value: with schema 1: decode Avro: `},
		{"unknown schema", record(t, nil, framed(9, "")), `"value_schema_id":9,"tombstone":false,"error":"value: schema 9 is not in the registry"}`},
		{"broken schema", record(t, nil, framed(2, "")), `"error":"value: schema 2: parse schema: `},
		{"broken mark", record(t, nil, nil, stream.RecordHeader{Key: stream.MarkKey, Value: []byte{9}}), `"error":"header tailrace: `},
		{"bytes in a header", record(t, nil, nil, stream.RecordHeader{Key: "h", Value: []byte{255}}), `"headers":{"h":"/w=="}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec, err := NewReader(&fakeSchemas{}).Record(t.Context(), "t", 1, c.r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(rec)
			if err != nil || !strings.HasPrefix(string(got), head) || !strings.Contains(string(got), c.want) {
				t.Errorf("got %s, %v\nwant %s…%s", got, err, head, c.want)
			}
		})
	}
}

// A registry that does not answer is an error of the command, not of the record.
func TestRegistryDown(t *testing.T) {
	rec, err := NewReader(&fakeSchemas{}).Record(t.Context(), "t", 0, record(t, nil, []byte{0, 0, 0, 0, 3}))
	if !errors.Is(err, errDown) || rec != nil {
		t.Errorf("got %v, %v", rec, err)
	}
}

// A schema is asked for once.
func TestSchemasAreKept(t *testing.T) {
	src := &fakeSchemas{}
	d := NewReader(src)
	for range 3 {
		if _, err := d.Record(t.Context(), "t", 0, record(t, nil, []byte{0, 0, 0, 0, 1, 0})); err != nil {
			t.Fatal(err)
		}
	}
	if src.asked != 1 {
		t.Errorf("asked %d times", src.asked)
	}
}
