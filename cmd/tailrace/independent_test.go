package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// consumed is a line of independent_client.py consume.
type consumed struct {
	Key   map[string]any
	Value map[string]any
}

// consume reads count records of a topic with librdkafka, Confluent's registry client and
// fastavro.
func consume(t *testing.T, bootstrap, registry, topic string, count int) []consumed {
	t.Helper()
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), testenv.Python(), filepath.Join(root, "schemas/registry/testdata/independent_client.py"),
		"consume", "--bootstrap", bootstrap, "--registry", registry, "--topic", topic, "--count", fmt.Sprint(count), "--idle", "45")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("independent client (run make deps if it is missing): %v\n%s", err, stderr.String())
	}
	var out []consumed
	for line := range strings.Lines(stdout.String()) {
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		var c consumed
		if err := d.Decode(&c); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, c)
	}
	return out
}

// addresses asks a running process for its broker and registry.
func (p *process) addresses() (broker, registry string) {
	p.t.Helper()
	var s struct {
		Broker   struct{ Address string }
		Registry struct{ URL string }
	}
	if _, body := p.get("/status"); json.Unmarshal([]byte(body), &s) != nil || s.Broker.Address == "" || s.Registry.URL == "" {
		p.t.Fatalf("status: %s", body)
	}
	return s.Broker.Address, s.Registry.URL
}

// What others read: every common type, before and after a schema change, through our
// registry, by programs that share no code with ours.
func TestIndependentClientReadsEveryType(t *testing.T) {
	columns := []struct{ name, sqlType, literal, want string }{
		{"small", "smallint", "-32768", "-32768"},
		{"big", "bigint", "9223372036854775807", "9223372036854775807"},
		{"real4", "real", "1.5", "1.5"},
		{"real8", "double precision", "-2.25e10", "-22500000000.0"},
		{"flag", "boolean", "true", "true"},
		{"price", "numeric(12,2)", "-1234567.80", "-1234567.80"},
		{"free", "numeric", "12.5000", `{"scale":1,"value":"\\x7d"}`},
		{"name", "text", "E'Zo\\u00eb \\\\ \"q\"'", `Zoë \ "q"`},
		{"code", "char(4)", "'ab'", "ab  "},
		{"raw", "bytea", `'\xdeadbeef'`, `\xdeadbeef`},
		{"day", "date", "'2024-02-29'", "19782"},
		{"at", "timestamp", "'2024-02-29 12:34:56.789012'", "1709210096789012"},
		{"zoned", "timestamptz", "'2024-02-29 12:34:56.789012+05:30'", "2024-02-29T07:04:56.789012Z"},
		{"clock", "time", "'23:59:59.999999'", "86399999999"},
		{"id2", "uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{"doc", "jsonb", `'{"a": [1, null]}'`, `{"a": [1, null]}`},
		{"feeling", "mood", "'so-so'", "so-so"},
		{"numbers", "int[]", "'{1,NULL,3}'", "[1,null,3]"},
		{"words", "text[]", `'{"a,b",NULL,"\"c\""}'`, `["a,b",null,"\"c\""]`},
		{"net", "inet", "'10.1.2.3/8'", "10.1.2.3/8"},
		{"nothing", "int", "NULL", "null"},
	}
	for name, broker := range map[string]func(*testing.T) string{"embedded": embeddedBroker, "kafka": kafkaBroker} {
		t.Run(name, func(t *testing.T) {
			pg := testenv.SharedPostgres(t)
			db := pg.CreateDatabase(t)
			exec := func(sql ...string) {
				t.Helper()
				if err := pg.Exec(t.Context(), db, sql...); err != nil {
					t.Fatal(err)
				}
			}
			create, values := "CREATE TABLE every (id int PRIMARY KEY", "INSERT INTO every VALUES (1"
			for _, c := range columns {
				create += ", " + c.name + " " + c.sqlType
				values += ", " + c.literal
			}
			exec("CREATE TYPE mood AS ENUM ('sad', 'so-so', 'happy')", create+")", "ALTER TABLE every REPLICA IDENTITY FULL")
			s := settings{name: testenv.Unique("indep"), broker: broker(t), registry: ownRegistry(t), url: pg.AdminURL(db)}
			p := s.configure(t).start(t)
			p.ready()
			exec(values+")", "ALTER TABLE every ADD COLUMN later text DEFAULT 'soon'", "UPDATE every SET small = 7", "DELETE FROM every")

			bootstrap, registry := p.addresses()
			got := consume(t, bootstrap, registry, s.name+".public.every", 4) // create, update, delete, tombstone
			checkEvery(t, columns, got[0].Value["after"])
			if op := []any{got[0].Value["op"], got[1].Value["op"], got[2].Value["op"]}; fmt.Sprint(op) != "[c u d]" || got[3].Value != nil {
				t.Errorf("operations %v, then %v", op, got[3].Value)
			}
			after, _ := got[1].Value["after"].(map[string]any)
			if text(after["later"]) != "soon" || text(after["small"]) != "7" {
				t.Errorf("after the schema change: %v", after)
			}
			for _, c := range got {
				if text(c.Key["id"]) != "1" {
					t.Errorf("key %v", c.Key)
				}
			}
			ends := consume(t, bootstrap, registry, s.name+".transaction", 3)
			if text(ends[0].Value["status"]) != "END" || text(ends[0].Value["event_count"]) != "1" {
				t.Errorf("END: %v", ends[0].Value)
			}
			p.stop(syscall.SIGTERM, 0)
			dropSlot(t, pg, db, s.slot())
		})
	}
}

func checkEvery(t *testing.T, columns []struct{ name, sqlType, literal, want string }, after any) {
	t.Helper()
	row, ok := after.(map[string]any)
	if !ok {
		t.Fatalf("after is %v", after)
	}
	for _, c := range columns {
		if got := text(row[c.name]); got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.name, c.sqlType, got, c.want)
		}
	}
}

// text renders a decoded value: text as it is, anything else as JSON.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}
