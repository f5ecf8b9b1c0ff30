package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/sinktest"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// source is a broker in memory with a registry beside it.
func source(tb testing.TB) subscribe.Config {
	tb.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cluster.Close)
	cfg, err := sourceAt(cluster.ListenAddrs()[0], registrytest.Start(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cfg.Client.Close)
	tb.Cleanup(cfg.Registry.Close)
	return cfg
}

func sourceAt(broker, registryURL string) (subscribe.Config, error) {
	client, err := stream.NewClient(stream.Config{Brokers: []string{broker}, Timeout: 20 * time.Second})
	if err != nil {
		return subscribe.Config{}, err
	}
	reg, err := registry.NewClient(registry.ClientConfig{URL: registryURL})
	return subscribe.Config{Client: client, Registry: reg, MaxWait: 100 * time.Millisecond}, err
}

// written returns the changes of a table with one partition, as a sink is given them.
func written(t *testing.T, table *schemas.Table, changes ...sinktest.Change) []*sinks.Change {
	t.Helper()
	cfg := source(t)
	w := sinktest.NewWriter(t, cfg, "shop")
	tab := w.Table(table, 1)
	for i := range changes {
		changes[i].Table = tab
	}
	w.Tx(changes...)
	from := subscribe.FeedPartition{Partition: sinks.Partition{Topic: tab.Topic}}
	feed, err := subscribe.NewFeed(t.Context(), cfg, []subscribe.FeedPartition{from})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(feed.Close)
	b, err := feed.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []*sinks.Change
	for i := range b.Changes {
		out = append(out, &b.Changes[i])
	}
	return out
}

func testWriter(t *testing.T, cfg Config) *writer {
	t.Helper()
	to, problems := cfg.compile()
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return &writer{cfg: &cfg, to: to}
}

func column(name string, kind schemas.Kind) schemas.Column {
	return schemas.Column{Name: name, Type: schemas.Type{Kind: kind}, Nullable: true}
}

func kinds() *schemas.Table {
	t := &schemas.Table{Namespace: "public", Name: "kinds", Key: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int64}}, column("flag", schemas.Bool), column("real", schemas.Float32), column("double", schemas.Float64),
		{Name: "price", Type: schemas.Type{Kind: schemas.Decimal, Precision: 20, Scale: 2}, Nullable: true}, column("free", schemas.VarDecimal),
		column("note", schemas.String), column("raw", schemas.Bytes), column("day", schemas.Date),
		{Name: "clock", Type: schemas.Type{Kind: schemas.Time, Precision: 6}, Nullable: true}, {Name: "local", Type: schemas.Type{Kind: schemas.Timestamp, Precision: 3}, Nullable: true},
		{Name: "instant", Type: schemas.Type{Kind: schemas.ZonedTimestamp, Precision: 6}, Nullable: true}, column("span", schemas.Interval),
		column("uuid", schemas.UUID), column("doc", schemas.JSON), {Name: "mood", Type: schemas.Type{Kind: schemas.Enum, Allowed: []string{"sad", "ok"}}, Nullable: true},
		{Name: "tags", Type: schemas.Type{Kind: schemas.Array, Elem: &schemas.Type{Kind: schemas.String}}, Nullable: true},
		{Name: "sums", Type: schemas.Type{Kind: schemas.Array, Elem: &schemas.Type{Kind: schemas.Decimal, Precision: 9, Scale: 1}}, Nullable: true},
	}}
	return t
}

func kindsRow() []any {
	return []any{math.MaxInt64, true, 1.5, math.Inf(-1), "123456789012345678.90", "-0.050", "a\"\\\n\x01é", []byte{0, 1, 255}, 19849, 25_689_123_456, 1_714_979_289_123_000,
		1_714_979_289_123_456, -1_500_000, "0b7a6a5e-0d5f-4f1c-9d53-0f3f7b1f6a11", `{"a": [1]}`, "ok", []any{"x", nil, `"`}, []any{"1.5", "-2.0"}}
}

const kindsJSON = `{"id":9223372036854775807,"flag":true,"real":1.5,"double":"-Infinity","price":"123456789012345678.90","free":"-0.05","note":"a\"\\\n\u0001é","raw":"AAH/",` +
	`"day":"2024-05-06","clock":"07:08:09.123456","local":"2024-05-06T07:08:09.123","instant":"2024-05-06T07:08:09.123456Z","span":"-PT1.500000S",` +
	`"uuid":"0b7a6a5e-0d5f-4f1c-9d53-0f3f7b1f6a11","doc":"{\"a\": [1]}","mood":"ok","tags":["x",null,"\""],"sums":["1.5","-2.0"]}`

func TestValuesAsJSON(t *testing.T) {
	c := written(t, kinds(), sinktest.Change{Op: 'c', Row: kindsRow()}, sinktest.Change{Op: 'u', Row: append([]any{7}, make([]any, 17)...)})
	w := testWriter(t, Config{URL: "https://api.example/{table}/{key.id}?p={after.price}"})
	e, err := w.event(c[0])
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(e.body), `"commit_time":"`)
	at, rest, _ := strings.Cut(rest, `"`)
	if _, err := time.Parse("2006-01-02T15:04:05.000000Z", at); err != nil {
		t.Error(err)
	}
	if want := `,"key":{"id":9223372036854775807},"before":null,"after":` + kindsJSON + "}"; rest != want {
		t.Errorf("got\n%s\nwant\n%s", rest, want)
	}
	if !json.Valid(e.body) || !strings.HasPrefix(string(e.body), `{"op":"c","schema":"public","table":"kinds","commit_time":`) {
		t.Errorf("the body is %s", e.body)
	}
	if got := e.url.String(); got != "https://api.example/kinds/9223372036854775807?p=123456789012345678.90" {
		t.Errorf("the address is %s", got)
	}
	var refused *sinks.Refused
	if _, err := w.event(c[1]); !errors.As(err, &refused) || refused.Change != c[1] || !strings.Contains(err.Error(), "{after.price}: it is null") || refused.Hint() == "" {
		t.Errorf("a template without a value: %v", err)
	}
}

func items() *schemas.Table {
	return &schemas.Table{Namespace: "public", Name: "items", Key: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int64}}, column("v", schemas.Int32), column("note", schemas.String)}}
}

// after cuts an event's data behind the commit time.
func after(body []byte) string {
	_, rest, _ := bytes.Cut(body, []byte(`"commit_time":"`))
	_, rest, _ = bytes.Cut(rest, []byte(`",`))
	return string(rest)
}

func TestEvents(t *testing.T) {
	c := written(t, items(), sinktest.Change{Op: 'c', Row: []any{1, 10, "a"}}, sinktest.Change{Op: 'u', Row: []any{1, 11, sinktest.Unchanged}},
		sinktest.Change{Op: 'u', Row: []any{2, 11, "b"}, OldKey: []any{1}}, sinktest.Change{Op: 'd', Row: []any{2, nil, nil}}, sinktest.Change{Op: 't'})
	w := testWriter(t, Config{URL: "https://api.example/"})
	var got, ids, keys []string
	for _, change := range c {
		e, err := w.event(change)
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			got = append(got, "")
			continue
		}
		got, ids, keys = append(got, string(change.Op)+" "+after(e.body)), append(ids, e.id), append(keys, e.key)
	}
	want := []string{
		`c "key":{"id":1},"before":null,"after":{"id":1,"v":10,"note":"a"}}`,
		`u "key":{"id":1},"before":null,"after":{"id":1,"v":11},"unchanged":["note"]}`,
		`d "key":{"id":1},"before":{"id":1,"v":null,"note":null},"after":null,"new_key":{"key":0}}`, "",
		`c "key":{"id":2},"before":null,"after":{"id":2,"v":11,"note":"b"},"old_key":{"key":0}}`,
		`d "key":{"id":2},"before":{"id":2,"v":null,"note":null},"after":null}`, "",
		`t "key":null,"before":null,"after":null}`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if want := "[shop:1:0:1010:1 shop:1:0:1010:2 shop:1:0:1010:3 shop:1:0:1010:5 shop:1:0:1010:6 shop:1:0:1010:8]"; fmt.Sprint(ids) != want {
		t.Errorf("ids are %v, want %s", ids, want)
	}
	if keys[0] != keys[1] || keys[0] != keys[2] || keys[3] != keys[4] || keys[0] == keys[3] {
		t.Errorf("keys are %q", keys)
	}
}

// headerOf returns a request's header; "" if there is none.
func headerOf(e *event, name string) string {
	for _, h := range e.header {
		if strings.EqualFold(h.name, name) {
			return h.value
		}
	}
	return ""
}

func TestModes(t *testing.T) {
	c := written(t, items(), sinktest.Change{Op: 'c', Row: []any{1, 10, "a"}})
	headers := map[string]string{"authorization": "Bearer x", "x-item": "{after.note}/{op}"}
	w := testWriter(t, Config{URL: "https://api.example/", Headers: headers})
	e, err := w.event(c[0])
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"content-type": "application/json", "ce-specversion": "1.0", "ce-id": "shop:1:0:1010:1", "ce-source": "/debezium/postgresql/shop",
		"ce-type": "io.debezium.connector.postgresql.DataChangeEvent", "ce-iodebeziumop": "c", "ce-iodebeziumconnector": "postgresql", "ce-iodebeziumname": "shop", "ce-iodebeziumdb": "db",
		"ce-iodebeziumschema": "public", "ce-iodebeziumtable": "items", "ce-iodebeziumtxid": "1010", "ce-iodebeziumsnapshot": "false", "ce-iodebeziumxmin": "", "authorization": "Bearer x", "x-item": "a/c"}
	for name, value := range want {
		if got := headerOf(e, name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	if at := headerOf(e, "ce-time"); !strings.Contains(string(e.body), `"commit_time":"`+at+`"`) {
		t.Errorf("ce-time is %q", at)
	}
	data := string(e.body)
	w = testWriter(t, Config{URL: "https://api.example/", Mode: Structured})
	if e, err = w.event(c[0]); err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(e.body, &fields); err != nil {
		t.Fatal(err)
	}
	if string(fields["data"]) != data || headerOf(e, "content-type") != "application/cloudevents+json" || string(fields["datacontenttype"]) != `"application/json"` {
		t.Errorf("the structured event is %s", e.body)
	}
	for name, value := range want {
		if attribute, ok := strings.CutPrefix(name, "ce-"); ok && value != "" && string(fields[attribute]) != `"`+value+`"` {
			t.Errorf("%s is %s, want %q", attribute, fields[attribute], value)
		}
	}
	r := several([]*event{e, e})
	var list []json.RawMessage
	if err := json.Unmarshal(r.body, &list); err != nil || len(list) != 2 || string(list[1]) != string(e.body) || r.header[0].value != typeBatch {
		t.Errorf("the batch is %s, %v, %v", r.body, r.header, err)
	}
	if other := several([]*event{e}); other.id == r.id || several([]*event{e, e}).id != r.id {
		t.Errorf("ids of batches are %s, %s", r.id, other.id)
	}
}

// What is valid text comes back from JSON as it was; what is not is refused.
func FuzzString(f *testing.F) {
	for _, s := range []string{"", "a\"\\/\b\n\r\t\x00\x1f\x7f é \u2028 \U0001F600", "\xff", "\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		out, err := appendString(nil, text)
		if err != nil {
			if utf8.ValidString(text) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		var back string
		if err := json.Unmarshal(out, &back); err != nil || back != text {
			t.Fatalf("%q became %s, which is %q, %v", text, out, back, err)
		}
	})
}
