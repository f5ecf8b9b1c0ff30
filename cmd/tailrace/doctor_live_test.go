package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/doctor"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// Nothing is wrong with what `tailrace grants` made, at any depth, on any version, before
// the first start; and what was looked at is what the depth says.
func TestDoctorHealthy(t *testing.T) {
	for _, version := range []int{14, 15, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			server := testenv.SharedPostgres
			if version != 15 {
				server = func(tb testenv.TB) *testenv.Postgres {
					return testenv.NewPostgres(tb, testenv.PGOptions{Version: version})
				}
			}
			w := newWard(t, server(t))
			for depth, codes := range map[string][]string{
				"--offline=true": {"CONFIG"},
				"--deep=false":   {"PG_SLOT_CREATE", "PG_PUBLICATION", "PG_SELECT", "TARGET_POSITION", "TARGET_CREATE", "BROKER_DIR", "REGISTRY_LISTEN", "HTTP_LISTEN"},
				"--deep=true":    {"PG_DECODE", "PG_SELECT"},
			} {
				w.args = []string{depth}
				findings := w.examine()
				if text := bad(findings); text != "" {
					t.Errorf("%s finds\n%s", depth, text)
				}
				for _, code := range codes {
					if !has(findings, code) {
						t.Errorf("%s does not say %s", depth, code)
					}
				}
				if depth == "--offline=true" && len(findings) != 1 {
					t.Errorf("offline found %+v", findings)
				}
				if has(findings, "PG_DECODE") != (depth == "--deep=true") {
					t.Errorf("%s: the log was read: %v", depth, has(findings, "PG_DECODE"))
				}
			}
		})
	}
}

func has(findings []doctor.Finding, code string) bool {
	for _, f := range findings {
		if f.Code == code {
			return true
		}
	}
	return false
}

// run starts `tailrace run` with the ward's configuration, and waits until all of it works.
func (w *ward) run() *process {
	w.t.Helper()
	in := &instance{file: w.file(), http: w.http, url: w.sourceURL}
	p := in.start(w.t)
	p.ready()
	return p
}

// Roles that `tailrace grants` made capture and apply, from the first row on, and may do
// nothing more. And doctor, at any depth, does not disturb what runs.
func TestGrantedRoles(t *testing.T) {
	for _, version := range []int{15, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			server := testenv.SharedPostgres
			if version != 15 {
				server = func(tb testenv.TB) *testenv.Postgres {
					return testenv.NewPostgres(tb, testenv.PGOptions{Version: version})
				}
			}
			w := newWard(t, server(t))
			w.onSource("INSERT INTO sales.items VALUES (1)")
			p := w.run()
			copied := func(rows string) func() bool {
				return func() bool {
					return query(t, w.server, w.target, "SELECT coalesce(string_agg(o::text, ' ' ORDER BY id), '') FROM copy.orders o") == rows
				}
			}
			p.until("copied", copied("(1,one)"))
			for i, depth := range []string{"--deep=false", "--deep=true"} {
				w.args = []string{depth}
				findings := w.examineRunning()
				if text := bad(findings); text != "" {
					t.Errorf("%s finds\n%s", depth, text)
				}
				for _, code := range []string{"BROKER_PRODUCE", "REGISTRY_REGISTER", "PG_SLOT"} {
					if !has(findings, code) {
						t.Errorf("%s does not say %s: %+v", depth, code, findings)
					}
				}
				w.onSource(fmt.Sprintf("UPDATE orders SET note = 'after %d'", i))
				p.until("copied", copied(fmt.Sprintf("(1,\"after %d\")", i)))
			}
			if _, status := p.get("/status"); strings.Count(status, `"restarts": 0`) != 2 {
				t.Errorf("something was started again: %s", status)
			}
			w.refused()
			w.lagOfRunning(p)
			p.stop(syscall.SIGTERM, 0)
			w.undone()
		})
	}
}

// examineRunning is examine, and looks at the broker and the registry that run.
func (w *ward) examineRunning() []doctor.Finding {
	w.t.Helper()
	left := func() string {
		code, topics, stderr := execute("topic", "list", "--all", "-f", w.file())
		if code != 0 {
			w.t.Fatalf("topic list: %s", stderr)
		}
		var names []string
		for line := range strings.Lines(topics) {
			if name := strings.Fields(line)[0]; !strings.HasPrefix(name, "__transaction") { // Kafka's own comes with the first transaction
				names = append(names, name)
			}
		}
		return strings.Join(names, " ")
	}
	before := left()
	findings := w.examine()
	if after := left(); after != before {
		w.t.Errorf("topics are left behind: before\n%s\nafter\n%s", before, after)
	}
	return findings
}

// lagOfRunning asks the process for its lag.
func (w *ward) lagOfRunning(p *process) {
	w.t.Helper()
	p.until("caught up", func() bool {
		code, stdout, _ := execute("lag", "--max", "30s", "-f", w.file())
		return code == 0 && strings.Contains(stdout, "capture  "+w.name) && strings.Contains(stdout, "sink")
	})
}

// refused tries what the roles must not be able to do.
func (w *ward) refused() {
	w.t.Helper()
	reader := []string{
		"INSERT INTO orders VALUES (9)", "UPDATE orders SET note = ''", "DELETE FROM orders", "TRUNCATE orders", "ALTER TABLE orders ADD COLUMN x int", "DROP TABLE orders",
		"SELECT * FROM private", "SELECT rolpassword FROM pg_authid", "CREATE TABLE public.mine (id int)", "CREATE TABLE sales.mine (id int)", "CREATE SCHEMA mine", "CREATE DATABASE mine", "CREATE ROLE mine",
		"CREATE PUBLICATION mine", "DROP PUBLICATION NAME", "ALTER PUBLICATION NAME ADD TABLE private", "ALTER SYSTEM SET wal_level = minimal", "SELECT pg_reload_conf()",
		"COPY (SELECT 1) TO PROGRAM 'true'", "COPY (SELECT 1) TO '/tmp/x'", "SELECT pg_read_file('postgresql.conf')", "SET ROLE postgres", "ALTER ROLE READER SUPERUSER", "GRANT pg_read_all_data TO READER",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'", "SET session_replication_role = replica",
	}
	writer := []string{
		"CREATE TABLE public.mine (id int)", "CREATE SCHEMA mine", "CREATE DATABASE mine", "CREATE ROLE mine", "DROP TABLE copy.orders", "ALTER TABLE copy.orders ADD COLUMN x int", "SELECT * FROM public.private",
		"SELECT pg_create_logical_replication_slot('mine', 'pgoutput')", "CREATE PUBLICATION mine", "ALTER SYSTEM SET wal_level = minimal", "COPY (SELECT 1) TO PROGRAM 'true'", "SET ROLE postgres", "ALTER ROLE WRITER SUPERUSER",
	}
	w.onTarget("CREATE TABLE private (id int)", "REVOKE ALL ON SCHEMA public FROM PUBLIC")
	for url, statements := range map[string][]string{w.sourceURL: reader, w.targetURL: writer} {
		conn, err := pgx.Connect(w.t.Context(), url)
		if err != nil {
			w.t.Fatal(err)
		}
		w.server.Connect(w.t, "postgres") // somebody to be ended
		for _, s := range statements {
			_, err := conn.Exec(w.t.Context(), w.fill(s))
			if err == nil || !strings.Contains(err.Error(), "42501") && !strings.Contains(err.Error(), "permission denied") && !strings.Contains(err.Error(), "must be") {
				w.t.Errorf("%s: %v", s, err)
			}
		}
		_ = conn.Close(w.t.Context())
	}
}

// undone runs what `tailrace grants --undo` prints: nothing of the roles is left, and what
// they have made stays.
func (w *ward) undone() {
	w.t.Helper()
	w.dropSlots()
	w.onSource(w.grants("--role", w.reader, "--tables", "public.orders,sales.*", "--publication", w.name, "--undo")...)
	w.onTarget(w.grants("--for", "sink", "--role", w.writer, "--tables", "public.orders,sales.*", "--schema", "copy", "--undo")...)
	if left := query(w.t, w.server, w.source, w.fill("SELECT (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'NAME%')::text || (SELECT count(*) FROM pg_publication)")); left != "00" {
		w.t.Errorf("roles and publications are left: %s", left)
	}
	if stays := query(w.t, w.server, w.target, "SELECT (SELECT count(*) FROM copy.orders)::text || (SELECT count(*) FROM copy.items)"); stays != "11" {
		w.t.Errorf("rows in the target: %s, want 1 in each table", stays)
	}
}

// On Apache Kafka the record goes through a transaction, and no topic is left.
func TestDoctorKafka(t *testing.T) {
	w := newWard(t, testenv.SharedPostgres(t))
	w.broker = kafkaBroker(t)
	findings := w.examineRunning()
	if text := bad(findings); text != "" {
		t.Error(text)
	}
	if f := findings[2]; f.Code != "BROKER_PRODUCE" || !strings.Contains(f.Found, "in a transaction") {
		t.Errorf("found %+v", f)
	}
}

// A check that is interrupted, or killed, while the server waits for another's transaction
// leaves no slot behind.
func TestDoctorInterrupted(t *testing.T) {
	for signal, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 1, syscall.SIGKILL: -1} {
		t.Run(signal.String(), func(t *testing.T) {
			w := newWard(t, testenv.SharedPostgres(t))
			before := w.inventory()
			end := w.hold("INSERT INTO private VALUES (1)")
			file := w.file()
			cmd := exec.Command(os.Args[0], "doctor", "-f", file)
			cmd.Env = append(os.Environ(), asCommand+"=1")
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.until("waiting", func() bool {
				return query(t, w.server, w.source, "SELECT count(*)::text FROM pg_replication_slots WHERE slot_name LIKE 'tailrace_doctor_%' AND database = current_database()") == "1"
			})
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the exit code says it
			if got := cmd.ProcessState.ExitCode(); got != code {
				t.Errorf("exit code %d, want %d\n%s", got, code, out.String())
			}
			if signal == syscall.SIGKILL { // the server notices when it has something to do
				end()
				w.until("cleaned up", func() bool { return w.inventory() == before })
			} else if after := w.inventory(); after != before {
				t.Errorf("left behind: %s\nbefore: %s", after, before)
			}
		})
	}
}

// A process that is about to start is not disturbed: nothing holds its data directory or
// its ports after a check.
func TestDoctorThenRun(t *testing.T) {
	w := newWard(t, testenv.SharedPostgres(t))
	if text := bad(w.examine()); text != "" {
		t.Error(text)
	}
	p := w.run()
	if code, _ := p.get("/readyz"); code != http.StatusOK {
		t.Errorf("answered %d", code)
	}
	p.stop(syscall.SIGTERM, 0)
}
