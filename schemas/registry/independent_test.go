package registry_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
)

// independent runs testdata/independent_client.py, whose client and decoder are
// Confluent's and fastavro's, and returns its lines.
func independent(t *testing.T, stdin string, args ...string) ([]map[string]any, error) {
	t.Helper()
	if _, err := os.Stat(testenv.Python()); err != nil {
		t.Fatalf("no Python environment (%v): run make deps", err)
	}
	const script = "testdata/independent_client.py"
	if _, err := os.Stat(script); err != nil { // also ties cached results to the script
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), testenv.Python(), append([]string{script}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, stderr.String())
	}
	var lines []map[string]any
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		d := json.NewDecoder(bytes.NewReader(sc.Bytes()))
		d.UseNumber()
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// jsonLines renders values one on a line.
func jsonLines(t *testing.T, values ...any) string {
	t.Helper()
	var b strings.Builder
	for _, v := range values {
		if err := json.NewEncoder(&b).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

var orders = schemas.Table{Namespace: "public", Name: "orders", Key: []int{0}, Columns: []schemas.Column{
	{Name: "id", Type: schemas.Type{Kind: schemas.Int64}},
	{Name: "price", Type: schemas.Type{Kind: schemas.Decimal, Precision: 10, Scale: 2},
		Default: schemas.Default{Kind: schemas.ValueDefault, Text: "1.50"}},
	{Name: "note", Type: schemas.Type{Kind: schemas.String}, Nullable: true},
	{Name: "raw", Type: schemas.Type{Kind: schemas.Bytes}, Nullable: true},
	{Name: "made", Type: schemas.Type{Kind: schemas.ZonedTimestamp, Precision: 6}},
}}

func derive(t *testing.T, table *schemas.Table) *schemas.Derived {
	t.Helper()
	d, err := schemas.Derive(table, schemas.Naming{Prefix: "shop-1", Connector: "postgresql"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestIndependentRegistryClient takes Confluent's client through our server.
func TestIndependentRegistryClient(t *testing.T) {
	url := registrytest.Start(t)
	d := derive(t, &orders)
	endKey, endValue := schemas.TransactionSchemas()
	simple := record("a int", "b string=\"\"")
	lines, err := independent(t, jsonLines(t,
		map[string]string{"subject": d.Topic + "-key", "schema": d.KeySchema},
		map[string]string{"subject": d.Topic + "-value", "schema": d.ValueSchema},
		map[string]string{"subject": "shop-1.transaction-key", "schema": endKey},
		map[string]string{"subject": "shop-1.transaction-value", "schema": endValue},
		map[string]any{"subject": "simple-value", "schema": " " + simple, "sample": map[string]any{"a": 150, "b": "ü"}},
		map[string]string{"subject": "a/b c:ü?-value", "schema": simple},
	), "registry", "--registry", url, "--normalize")
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, registry.ClientConfig{URL: url})
	for i, want := range []struct{ subject, schema, id string }{
		{d.Topic + "-key", d.KeySchema, "1"}, {d.Topic + "-value", d.ValueSchema, "2"},
		{"shop-1.transaction-key", endKey, "3"}, {"shop-1.transaction-value", endValue, "4"},
		{"simple-value", simple, "5"}, {"a/b c:ü?-value", simple, "5"},
	} {
		if got := fmt.Sprint(lines[i]["id"]); got != want.id || lines[i]["subject"] != want.subject {
			t.Errorf("line %d: %v", i, lines[i])
		}
		if id, _, err := c.Lookup(t.Context(), want.subject, want.schema); err != nil || fmt.Sprint(id) != want.id {
			t.Errorf("%s: id %d, %v", want.subject, id, err)
		}
	}
	framed, err := base64.StdEncoding.DecodeString(fmt.Sprint(lines[4]["framed"]))
	want := schemas.AppendString(schemas.AppendInt(schemas.AppendFrame(nil, 5), 150), "ü")
	if err != nil || !bytes.Equal(framed, want) {
		t.Errorf("Confluent's serializer wrote %x, we %x, %v", framed, want, err)
	}
}

// envelope returns a create of a row of orders.
func envelope(id int32, row []byte) []byte {
	b := schemas.AppendUnion(schemas.AppendFrame(nil, id), schemas.EnvelopeNull)
	b = append(schemas.AppendUnion(b, schemas.EnvelopeRow), row...)
	w := schemas.NewSourceWriter(schemas.SourceConfig{Version: "1", Connector: "postgresql", Name: "shop-1", Database: "db"})
	w.SetTransaction(schemas.SourceTx{ID: 7, CommitMicros: 1_700_000_000_000_001, LastCommitLSN: 41})
	b = w.Append(b, schemas.NewSourceTable("public", "orders"), 42)
	return schemas.AppendEnvelopeTail(b, 'c', 1_700_000_000_000_002)
}

func row(t *testing.T, id int64) []byte {
	t.Helper()
	b := schemas.AppendLong(nil, id)
	b, err := schemas.AppendDecimal(b, []byte("-12345678.90"), 2)
	if err != nil {
		t.Fatal(err)
	}
	b = schemas.AppendString(schemas.AppendUnion(b, 1), "naïve ☃")
	b = schemas.AppendUnion(b, 0)
	return schemas.AppendZonedTimestamp(b, 1_700_000_000_123_456, &orders.Columns[4].Type)
}

// TestIndependentDecoder has fastavro decode what the append functions write, with schemas
// that our client registered and Confluent's fetches.
func TestIndependentDecoder(t *testing.T) {
	url := registrytest.Start(t)
	c := newClient(t, registry.ClientConfig{URL: url})
	d := derive(t, &orders)
	key, err := c.Register(t.Context(), d.Topic+"-key", d.KeySchema)
	if err != nil {
		t.Fatal(err)
	}
	value, err := c.Register(t.Context(), d.Topic+"-value", d.ValueSchema)
	if err != nil {
		t.Fatal(err)
	}
	const big = 1<<62 + 1
	k := schemas.AppendLong(schemas.AppendFrame(nil, key), big)
	v := envelope(value, row(t, big))
	lines, err := independent(t, jsonLines(t,
		map[string]any{"topic": d.Topic, "partition": 3, "offset": 9, "key": k, "value": v},
		map[string]any{"topic": d.Topic, "partition": 3, "offset": 10, "key": k, "value": nil},
	), "decode", "--registry", url)
	if err != nil {
		t.Fatal(err)
	}
	after := lines[0]["value"].(map[string]any)["after"].(map[string]any)
	source := lines[0]["value"].(map[string]any)["source"].(map[string]any)
	for what, got := range map[string]any{
		"shop-1.public.orders 3 9 1 2": fmt.Sprint(lines[0]["topic"], " ", lines[0]["partition"], " ", lines[0]["offset"], " ", lines[0]["key_schema"], " ", lines[0]["value_schema"]),
		"4611686018427387905":          lines[0]["key"].(map[string]any)["id"],
		"4611686018427387905 ":         fmt.Sprint(after["id"], " "),
		"-12345678.90":                 after["price"],
		"naïve ☃":                      after["note"],
		"<nil>":                        after["raw"],
		"2023-11-14T22:13:20.123456Z":  after["made"],
		`["41","42"] 7 42`:             fmt.Sprint(source["sequence"], " ", source["txId"], " ", source["lsn"]),
		"c":                            lines[0]["value"].(map[string]any)["op"],
		"<nil> <nil>":                  fmt.Sprint(lines[1]["value"], " ", lines[1]["value_schema"]),
	} {
		if fmt.Sprint(got) != what {
			t.Errorf("decoded %v, want %s", got, what)
		}
	}
}

// TestIndependentDecoderRefuses: the judge has to be one.
func TestIndependentDecoderRefuses(t *testing.T) {
	url := registrytest.Start(t)
	c := newClient(t, registry.ClientConfig{URL: url})
	id, err := c.Register(t.Context(), "s-value", schemaA)
	if err != nil {
		t.Fatal(err)
	}
	good := schemas.AppendInt(schemas.AppendFrame(nil, id), 7)
	for name, value := range map[string][]byte{
		"bytes left over": append(bytes.Clone(good), 0),
		"cut":             good[:len(good)-1],
		"no frame":        good[1:],
		"unknown schema":  schemas.AppendInt(schemas.AppendFrame(nil, id+1), 7),
	} {
		line := jsonLines(t, map[string]any{"topic": "s", "partition": 0, "offset": 0, "key": nil, "value": value})
		if lines, err := independent(t, line, "decode", "--registry", url); err == nil || !strings.Contains(err.Error(), "independent_client: {'topic': 's'") {
			t.Errorf("%s: decoded as %v, %v", name, lines, err)
		}
	}
}
