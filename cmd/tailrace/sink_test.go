package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// query returns the one text that a statement gives.
func query(t *testing.T, pg *testenv.Postgres, db, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.AdminURL(db))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var text string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// sameTables says how the tables of two databases differ; "" if they do not.
func sameTables(t *testing.T, pg *testenv.Postgres, source, target string, tables ...string) string {
	t.Helper()
	for _, table := range tables {
		sum := fmt.Sprintf("SELECT count(*) || ' ' || coalesce(md5(string_agg(r::text, E'\\n' ORDER BY r::text)), '') FROM %s r", table)
		want := query(t, pg, source, sum)
		if got := query(t, pg, target, sum); got != want {
			return fmt.Sprintf("%s: got %s, want %s", table, got, want)
		}
	}
	return ""
}

// `tailrace run` with a capture and a sink: the target becomes as the source, over a stop
// of both and what the source did meanwhile.
func TestRunWithSink(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	source, target := pg.CreateDatabase(t), pg.CreateDatabase(t)
	exec := func(sql ...string) {
		t.Helper()
		if err := pg.Exec(t.Context(), source, sql...); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE orders (id bigint PRIMARY KEY, note text, price numeric(10,2))",
		"CREATE TABLE items (order_id bigint, line int, name text NOT NULL, PRIMARY KEY (order_id, line))")
	name := testenv.Unique("sink")
	in := settings{name: name, broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(source),
		more: sinkTo(t, name, pg.AdminURL(target))}.configure(t)

	first := in.start(t)
	first.capturing()
	exec("BEGIN; INSERT INTO orders SELECT i, 'new', i * 1.5 FROM generate_series(1, 50) i; INSERT INTO items SELECT i, 1, 'a' FROM generate_series(1, 50) i; COMMIT",
		"UPDATE orders SET note = 'changed' WHERE id % 2 = 0", "DELETE FROM orders WHERE id = 3", "UPDATE orders SET id = 90 WHERE id = 4",
		"ALTER TABLE orders ADD COLUMN channel text", "INSERT INTO orders VALUES (91, 'web', 1, 'web')")
	equal := func() bool {
		return query(t, pg, target, "SELECT count(to_regclass(x))::text FROM unnest('{orders,items}'::text[]) x") == "2" &&
			sameTables(t, pg, source, target, "orders", "items") == ""
	}
	first.until("equal", equal)
	checkSink(t, first, name)
	first.stop(syscall.SIGTERM, 0)

	exec("INSERT INTO orders VALUES (100, 'while stopped', NULL, NULL)", "TRUNCATE items", "INSERT INTO items VALUES (1, 1, 'b')")
	second := in.start(t)
	second.until("equal again", equal)
	exec("DELETE FROM orders WHERE id > 50")
	second.until("equal at the end", equal)
	second.stop(syscall.SIGINT, 130)
	dropSlot(t, pg, source, settings{name: name}.slot())
}

// capturing waits until the capture runs. The process is ready only when the sink has
// topics to read.
func (p *process) capturing() {
	p.t.Helper()
	p.until("capturing", func() bool {
		_, body := p.get("/status")
		_, captures, _ := strings.Cut(body, `"captures": [`)
		captures, _, _ = strings.Cut(captures, `"events": {`)
		return strings.Contains(captures, `"state": "running"`)
	})
}

// checkSink asks the running process about its sink.
func checkSink(t *testing.T, p *process, name string) {
	t.Helper()
	code, stdout, stderr := execute("capture", "status", "--http-listen", p.http, "--check")
	if code != 0 || !strings.Contains(stdout, "DEAD LETTERS\n"+name+"  running") {
		t.Errorf("capture status: %d %s%s", code, stdout, stderr)
	}
	if code, body := p.get("/status"); code != http.StatusOK || !strings.Contains(body, `"sinks": [`) {
		t.Errorf("status: %d %s", code, body)
	}
	if code, body := p.get("/metrics"); code != http.StatusOK || !strings.Contains(body, fmt.Sprintf(`tailrace_sink_health{sink=%q,status="running"} 1`, name)) {
		t.Errorf("metrics: %d %s", code, body)
	}
}

// A sink whose target does not answer keeps the process from being ready, and says why.
func TestSinkWithoutTarget(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	source := pg.CreateDatabase(t)
	target := testenv.Unique("later")
	if err := pg.Exec(t.Context(), source, "CREATE TABLE orders (id bigint PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	name := testenv.Unique("sink")
	nobody := "postgres://u:p@" + freeAddress(t) + "/" + target
	in := settings{name: name, broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(source),
		more: sinkTo(t, name, nobody)}.configure(t)
	p := in.start(t)
	p.capturing()
	if err := pg.Exec(t.Context(), source, "INSERT INTO orders VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	p.until("waiting", func() bool {
		code, body := p.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "sink \\\""+name+"\\\" is waiting: ")
	})
	p.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, source, settings{name: name}.slot())
}
