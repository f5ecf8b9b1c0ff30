package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/doctor"
	"github.com/tailrace/tailrace/deploy/testenv"
)

const rolePassword = "s3cret-canary"

// ward is a configuration whose databases are as they should be, until a fault is made.
type ward struct {
	t              *testing.T
	server         *testenv.Postgres
	source, target string // databases
	reader, writer string // roles that `tailrace grants` made
	name           string // of the capture, the slot and the publication

	sourceURL, targetURL string
	capture, sink        map[string]string // further YAML of captures[0].postgres and sinks[0].postgres
	broker, registry     string
	http                 string
	replication          int      // of topics
	args                 []string // of doctor
	end                  func()   // of what a fault holds
}

// newWard makes two databases, roles for them, and what a capture and a sink need.
func newWard(t *testing.T, server *testenv.Postgres) *ward {
	t.Helper()
	name := strings.ReplaceAll(testenv.Unique("ward"), "-", "_")
	w := &ward{t: t, server: server, source: server.CreateDatabase(t), target: server.CreateDatabase(t), name: name,
		reader: name + "_reader", writer: name + "_writer", http: freeAddress(t),
		capture: map[string]string{"slot": name, "publication": name, "create_publication": "false", "tables": `["public.orders", "sales.*"]`},
		sink:    map[string]string{"schema": "copy"}, broker: embeddedBroker(t), registry: ownRegistry(t), replication: 1}
	w.sourceURL, w.targetURL = server.URL(w.reader, rolePassword, w.source), server.URL(w.writer, rolePassword, w.target)
	w.onSource("CREATE TABLE orders (id int PRIMARY KEY, note text)", "INSERT INTO orders VALUES (1, 'one')",
		"CREATE SCHEMA sales", "CREATE TABLE sales.items (id int PRIMARY KEY)", "CREATE TABLE private (id int PRIMARY KEY)", "REVOKE ALL ON SCHEMA public FROM PUBLIC")
	w.onTarget("CREATE SCHEMA copy", "CREATE TABLE copy.orders (id int PRIMARY KEY, note text)")
	w.onSource(w.grants("--role", w.reader, "--tables", "public.orders,sales.*", "--publication", name)...)
	w.onTarget(w.grants("--for", "sink", "--role", w.writer, "--tables", "public.orders,sales.*", "--schema", "copy")...)
	w.onSource("ALTER ROLE "+w.reader+" PASSWORD '"+rolePassword+"'", "ALTER ROLE "+w.writer+" PASSWORD '"+rolePassword+"'")
	t.Cleanup(w.dropSlots)
	return w
}

// dropSlots drops the slots that tests made in the source database.
func (w *ward) dropSlots() {
	const drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
	if err := w.server.Exec(context.Background(), w.source, drop); err != nil {
		w.t.Error(err)
	}
}

// grants are the statements that `tailrace grants` prints.
func (w *ward) grants(args ...string) []string {
	w.t.Helper()
	code, stdout, stderr := execute(append([]string{"grants", "-o", "json"}, args...)...)
	var answer struct{ Result granted }
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || code != 0 {
		w.t.Fatalf("grants ended with %d: %v %s%s", code, err, stdout, stderr)
	}
	if slices.Contains(args, "--undo") {
		return answer.Result.Undo
	}
	return answer.Result.SQL
}

func (w *ward) onSource(sql ...string) { w.t.Helper(); w.exec(w.source, sql...) }
func (w *ward) onTarget(sql ...string) { w.t.Helper(); w.exec(w.target, sql...) }

func (w *ward) exec(db string, sql ...string) {
	w.t.Helper()
	if err := w.server.Exec(w.t.Context(), db, sql...); err != nil {
		w.t.Fatal(err)
	}
}

// hold opens a transaction of a superuser that stays open until the returned function is
// called, or the test ends.
func (w *ward) hold(sql string) (end func()) {
	w.t.Helper()
	conn := w.server.Connect(w.t, w.source)
	for _, s := range []string{"BEGIN", sql} {
		if _, err := conn.Exec(w.t.Context(), s); err != nil {
			w.t.Fatal(err)
		}
	}
	return func() { _ = conn.Close(context.Background()) }
}

// file writes the configuration.
func (w *ward) file() string {
	w.t.Helper()
	section := func(m map[string]string) string {
		var out []string
		for _, k := range sortedKeys(m) {
			out = append(out, k+": "+m[k])
		}
		return strings.Join(out, ", ")
	}
	text := fmt.Sprintf("broker: %s\nregistry: %s\nhttp: { listen: %q }\nlog: { level: debug }\ncaptures:\n  - name: %s\n    postgres: { url: %q, %s }\n    topics: { replication: %d }\nsinks:\n  - name: copy\n    from: %s\n    postgres: { url: %q, %s }\n",
		w.broker, w.registry, w.http, w.name, inFile(w.t, w.sourceURL), section(w.capture), w.replication, w.name, inFile(w.t, w.targetURL), section(w.sink))
	file := filepath.Join(w.t.TempDir(), "tailrace.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// examine runs doctor, and checks its exit code, and that nothing is left behind.
func (w *ward) examine() []doctor.Finding {
	w.t.Helper()
	before := w.inventory()
	args := append([]string{"doctor", "-f", w.file(), "-o", "json"}, w.args...)
	code, stdout, stderr := execute(args...)
	var answer struct {
		OK     bool
		Result diagnosis
	}
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || stderr != "" {
		w.t.Fatalf("doctor ended with %d: %v\n%s%s", code, err, stdout, stderr)
	}
	want := map[bool]int{true: 0, false: 4}[doctor.Count(answer.Result.Findings, doctor.Error) == 0]
	if code != want || answer.OK != (want == 0) {
		w.t.Errorf("exit code %d, ok %v with %d errors", code, answer.OK, answer.Result.Errors)
	}
	if after := w.inventory(); after != before {
		w.t.Errorf("something was left behind: before\n%s\nafter\n%s", before, after)
	}
	if strings.Contains(stdout, rolePassword) || strings.Contains(stdout, testenv.Password) {
		w.t.Errorf("a password is in the answer: %s", stdout)
	}
	for _, f := range answer.Result.Findings {
		wantKnown(w.t, f)
	}
	return answer.Result.Findings
}

// wantKnown checks that a finding's code is in the list, at most as severe as that says.
func wantKnown(t *testing.T, f doctor.Finding) {
	t.Helper()
	rank := map[string]int{doctor.OK: 0, doctor.Warning: 1, doctor.Error: 2}
	i := slices.IndexFunc(doctor.Codes, func(c doctor.Code) bool { return c.Code == f.Code })
	if i < 0 || rank[f.Severity] > rank[doctor.Codes[i].Worst] {
		t.Errorf("finding %+v is not in the list of codes", f)
	}
	if f.Severity != doctor.OK && f.Mend == "" && len(f.SQL) == 0 && !strings.HasSuffix(f.Code, "_INTERRUPTED") {
		t.Errorf("finding %+v does not say how to mend it", f)
	}
}

// inventory lists what is in both databases, and the slots of the server; "" if it does not
// run.
func (w *ward) inventory() string {
	w.t.Helper()
	const all = `SELECT coalesce(string_agg(x, ' ' ORDER BY x), '') FROM (
		SELECT 'slot ' || slot_name FROM pg_replication_slots UNION ALL SELECT 'publication ' || pubname || array_to_string(ARRAY(SELECT prrelid::regclass::text FROM pg_publication_rel r WHERE r.prpubid = p.oid), ',') FROM pg_publication p
		UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_' UNION ALL SELECT 'table ' || oid::regclass FROM pg_class WHERE relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'pg_toast')) a(x)`
	var out string
	for _, db := range []string{w.source, w.target} {
		conn, err := pgx.Connect(w.t.Context(), w.server.AdminURL(db))
		if err != nil {
			w.t.Fatal(err)
		}
		var text string
		err = conn.QueryRow(w.t.Context(), all).Scan(&text)
		_ = conn.Close(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		out += text + "\n"
	}
	return out
}

// restart stops the server and starts it again.
func (w *ward) restart() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.server.Stop(ctx, "fast"); err != nil {
		w.t.Fatal(err)
	}
	if err := w.server.Start(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// found returns the finding with a code that is not ok.
func found(findings []doctor.Finding, code string) *doctor.Finding {
	for i := range findings {
		if f := &findings[i]; f.Code == code && f.Severity != doctor.OK {
			return f
		}
	}
	return nil
}

// bad writes the findings that are not ok.
func bad(findings []doctor.Finding) string {
	var out strings.Builder
	for _, f := range findings {
		if f.Severity != doctor.OK {
			fmt.Fprintf(&out, "%+v\n", f)
		}
	}
	return out.String()
}

// until polls a condition.
func (w *ward) until(what string, condition func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("is not %s", what)
		}
	}
}
