package topics

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tailrace/tailrace/deploy/internal/judge"
	"github.com/tailrace/tailrace/deploy/internal/workload"
)

// Schemas as small as the decoder can do with; ids are places in this list.
var schemas = []string{
	`{"type":"record","name":"Key","fields":[{"name":"iban","type":"string"}]}`,
	`{"type":"record","name":"Envelope","fields":[
		{"name":"after","type":["null",{"type":"record","name":"Value","fields":[{"name":"iban","type":"string"},{"name":"ver","type":"long"},{"name":"body","type":"string"},{"name":"note","type":["null","string"]}]}]},
		{"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"txId","type":["null","long"]}]}},
		{"name":"op","type":"string"}]}`,
	`{"type":"record","name":"End","fields":[{"name":"status","type":"string"},{"name":"id","type":"string"},{"name":"event_count","type":["null","long"]},
		{"name":"data_collections","type":["null",{"type":"array","items":{"type":"record","name":"collection","fields":[{"name":"data_collection","type":"string"},{"name":"event_count","type":"long"}]}}]}]}`,
}

func framed(t *testing.T, id int, native any) []byte {
	t.Helper()
	codec, err := goavro.NewCodec(schemas[id])
	if err != nil {
		t.Fatal(err)
	}
	b, err := codec.BinaryFromNative(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), native)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// served is a registry with the schemas.
func served(t *testing.T) *Registry {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var id int
		if _, err := fmt.Sscanf(r.URL.Path, "/schemas/ids/%d", &id); err != nil || id >= len(schemas) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"schema": schemas[id]})
	}))
	t.Cleanup(server.Close)
	return NewRegistry(server.URL)
}

type row struct {
	op, key, rowKey, body, note string
	ver                         int64
	gone                        bool // no row after the change
	header                      string
}

func (r row) record(t *testing.T) *kgo.Record {
	after := any(nil)
	if !r.gone {
		after = goavro.Union("Value", map[string]any{"iban": r.rowKey, "ver": r.ver, "body": r.body, "note": goavro.Union("string", r.note)})
	}
	out := &kgo.Record{Topic: "x.public.accounts", Key: framed(t, 0, map[string]any{"iban": r.key}),
		Value: framed(t, 1, map[string]any{"after": after, "source": map[string]any{"txId": goavro.Union("long", int64(77))}, "op": r.op})}
	out.Headers = append(out.Headers, kgo.RecordHeader{Key: "tailrace", Value: uvarints([]byte{1, 0}, 1, 0, 10, 1, 1)})
	if r.header != "" {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: r.header, Value: []byte("{}")})
	}
	return out
}

func TestDecodeChecksRows(t *testing.T) {
	good := row{op: "c", key: "K", rowKey: "K", ver: 3, body: workload.Body("accounts", "K", 3), note: workload.Note("K", 3)}
	for _, c := range []struct {
		name   string
		change func(r *row)
		fault  string // part of it; "": none
	}{
		{"a create", func(*row) {}, ""},
		{"an update without the note", func(r *row) { r.op, r.note = "u", Unavailable }, ""},
		{"a delete", func(r *row) { r.op, r.gone = "d", true }, ""},
		{"a create from a changed key", func(r *row) { r.header, r.note = "__debezium.oldkey", Unavailable }, ""},
		{"a row that was read", func(r *row) { r.op, r.note = "r", workload.Note("L", 1) }, ""},
		{"a row that was read without the note", func(r *row) { r.op, r.note = "r", Unavailable }, "note"},
		{"another body", func(r *row) { r.body += "x" }, "body"},
		{"the body of another version", func(r *row) { r.ver++ }, "body"},
		{"another key in the row", func(r *row) { r.rowKey = "L" }, "key says"},
		{"a note of another row", func(r *row) { r.note = workload.Note("L", 3) }, "note"},
		{"a create without the note", func(r *row) { r.note = Unavailable }, "note"},
		{"a create without a row", func(r *row) { r.gone = true }, "no row"},
		{"a delete with a row", func(r *row) { r.op = "d" }, "delete with a row"},
		{"no operation", func(r *row) { r.op = "" }, "operation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			c.change(&r)
			got, err := NewDecoder(served(t), "x").Decode(t.Context(), r.record(t))
			if err != nil {
				t.Fatal(err)
			}
			if (got.Fault == "") != (c.fault == "") || !strings.Contains(got.Fault, c.fault) {
				t.Errorf("fault %q, not %q", got.Fault, c.fault)
			}
			if c.fault == "" && (got.Key != "K" || got.XID != 77 || got.Op != r.op[0] || !r.gone && got.Ver != 3) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestDecodeTombstoneAndEnd(t *testing.T) {
	d := NewDecoder(served(t), "x")
	tombstone := row{op: "d", key: "K", gone: true}.record(t)
	tombstone.Value = nil
	got, err := d.Decode(t.Context(), tombstone)
	if err != nil || got.Op != judge.Tombstone || got.Key != "K" || got.XID != 0 || got.Fault != "" {
		t.Errorf("%+v, %v", got, err)
	}
	end := &kgo.Record{Topic: "x.transaction", Headers: []kgo.RecordHeader{{Key: "tailrace", Value: uvarints([]byte{1, 4}, 1, 0, 10, 3, 1, 0)}},
		Value: framed(t, 2, map[string]any{"status": "END", "id": "88:1234", "event_count": goavro.Union("long", int64(2)),
			"data_collections": goavro.Union("array", []any{map[string]any{"data_collection": "public.accounts", "event_count": int64(2)}})})}
	got, err = d.Decode(t.Context(), end)
	if err != nil || got.XID != 88 || got.Counts.Events != 2 || got.Counts.Collections["x.public.accounts"] != 2 || !got.Mark.IsEnd {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDecodeChunk(t *testing.T) {
	for id, from := range map[string]uint64{"backfill:again-3-lines:1234:17": 17, "backfill:again:1234": 0, "88:1234": 0, "backfill:again:1234:x": 0} {
		end := &kgo.Record{Topic: "x.transaction", Headers: []kgo.RecordHeader{{Key: "tailrace", Value: uvarints([]byte{1, 5}, 1, 0, 10, 3, 1, 0)}},
			Value: framed(t, 2, map[string]any{"status": "END", "id": id, "event_count": goavro.Union("long", int64(2)), "data_collections": goavro.Union("array", []any{})})}
		got, err := NewDecoder(served(t), "x").Decode(t.Context(), end)
		if err != nil || (got.Fault == "") != (from > 0) || got.From != from || from > 0 && got.Backfill != "again-3-lines" {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
}

func TestDecodeRefusesBytesThatAreNotAvro(t *testing.T) {
	d := NewDecoder(served(t), "x")
	good := row{op: "c", key: "K", rowKey: "K", ver: 3, body: workload.Body("accounts", "K", 3), note: workload.Note("K", 3)}.record(t)
	for name, value := range map[string][]byte{"short": {0, 0}, "no frame": append([]byte{7}, good.Value[1:]...), "cut": good.Value[:len(good.Value)-1],
		"too long": append(good.Value[:len(good.Value):len(good.Value)], 0), "unknown schema": {0, 0, 0, 0, 99, 1}} {
		r := *good
		r.Value = value
		if got, err := d.Decode(t.Context(), &r); err != nil || got.Fault == "" {
			t.Errorf("%s: no fault (%v)", name, err)
		}
	}
	dead := NewDecoder(NewRegistry("http://127.0.0.1:1"), "x")
	if _, err := dead.Decode(t.Context(), good); err == nil {
		t.Error("without a registry: no error")
	}
	bare := &kgo.Record{Topic: "x.public.accounts"}
	if got, err := d.Decode(t.Context(), bare); err != nil || !got.Foreign {
		t.Errorf("without the header: %+v, %v", got, err)
	}
}
