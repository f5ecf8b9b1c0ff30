package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// led is a capture and a sink that are brought to stops and led on.
type led struct {
	*testing.T
	*instance
	pg             *testenv.Postgres
	source, target string
	name           string
	p              *process
}

func newLed(t *testing.T, broker string) *led {
	t.Helper()
	pg := testenv.SharedPostgres(t)
	l := &led{T: t, pg: pg, source: pg.CreateDatabase(t), target: pg.CreateDatabase(t), name: testenv.Unique("led")}
	l.exec("CREATE TABLE orders (id bigint PRIMARY KEY, note text, price numeric(10,2))",
		"CREATE TABLE items (id bigint PRIMARY KEY, name text)", "CREATE TABLE t (id int PRIMARY KEY, v text)",
		"INSERT INTO orders SELECT i, 'old', i FROM generate_series(1, 20) i", "INSERT INTO items SELECT i, 'old' FROM generate_series(1, 20) i")
	l.instance = settings{name: l.name, broker: broker, registry: ownRegistry(t), url: pg.AdminURL(l.source),
		more: sinkTo(t, l.name, pg.AdminURL(l.target))}.configure(t)
	l.p = l.start(t)
	l.equal()
	t.Cleanup(func() { dropSlot(t, pg, l.source, settings{name: l.name}.slot()) })
	return l
}

func (l *led) exec(statements ...string) {
	l.Helper()
	if err := l.pg.Exec(l.Context(), l.source, statements...); err != nil {
		l.Fatal(err)
	}
}

// equal waits until the target is as the source.
func (l *led) equal() {
	l.Helper()
	l.p.until("equal", func() bool {
		return query(l.T, l.pg, l.target, "SELECT count(to_regclass(x))::text FROM unnest('{orders,items}'::text[]) x") == "2" &&
			sameTables(l.T, l.pg, l.source, l.target, "orders", "items") == ""
	})
}

// stopped waits until the capture or the sink has stopped for good, with an error that says
// want, and returns the command that its hint names.
func (l *led) stopped(part, want string) []string {
	l.Helper()
	var problem *httpapi.Problem
	l.p.until(part+" stopped", func() bool {
		var s httpapi.Status
		_, body := l.p.get("/status")
		if json.Unmarshal([]byte(body), &s) != nil {
			return false
		}
		state, said := s.Captures[0].State, s.Captures[0].Error
		if part == "sink" {
			state, said = s.Sinks[0].State, s.Sinks[0].Error
		}
		problem = said
		return state == httpapi.Stopped
	})
	if problem == nil || !strings.Contains(problem.Message, want) || !problem.Fatal {
		l.Fatalf("the %s has stopped with %+v, want %q", part, problem, want)
	}
	command := regexp.MustCompile(`tailrace ((?:capture|sink) resolve [^;]*)`).FindStringSubmatch(problem.Hint)
	if command == nil {
		l.Fatalf("no command leads on: %q", problem.Hint)
	}
	return append(strings.Fields(command[1]), "-f", l.file, "-o", "json", "--http-listen", l.http)
}

// decide runs a command that leads on, first without doing it, and returns what it does.
func (l *led) decide(command []string) (effect map[string]any) {
	l.Helper()
	ask := func(want int, more ...string) (answer struct {
		OK     bool
		Result struct {
			ID, Of string
			Done   bool
			Effect map[string]any
		}
	}) {
		l.Helper()
		code, stdout, stderr := execute(append(append([]string{}, command...), more...)...)
		if code != want {
			l.Fatalf("%v ended with %d: %s%s\n%s", command, code, stdout, stderr, l.p.log.String())
		}
		if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
			l.Fatalf("%v: %s", err, stdout)
		}
		return answer
	}
	ask(2) // nobody can be asked, and it says so
	dry := ask(0, "--dry-run")
	done := ask(0, "--yes", "--reason", "a test")
	if dry.Result.Done || !done.Result.Done || done.Result.ID == "" || fmt.Sprint(dry.Result.Effect) != fmt.Sprint(done.Result.Effect) {
		l.Fatalf("%v said %+v, then %+v", command, dry, done)
	}
	return done.Result.Effect
}

// Stops of a real capture and a real sink, on the way over both brokers; each error names the
// command that leads on, and the target becomes as the source again.
func TestResolve(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]func(*testing.T) string{"embedded": embeddedBroker, "kafka": kafkaBroker} {
		t.Run(name, func(t *testing.T) {
			l := newLed(t, broker(t))
			l.exec("INSERT INTO orders VALUES (100, 'x', 1); INSERT INTO items VALUES (100, 'x')")
			l.equal()
			checkSkip(l)
			checkRefused(l)
			checkNewEpoch(l)
			checkWithoutProcess(l)
			checkAudit(l, 8)
			l.p.stop(syscall.SIGTERM, 0)
		})
	}
}

// A value without a form stops the capture; its transaction is left out, and no other.
func checkSkip(l *led) {
	l.exec("BEGIN; INSERT INTO items VALUES (200, 'with it'); INSERT INTO orders VALUES (200, 'y', 'NaN'); COMMIT", "INSERT INTO orders VALUES (201, 'after', 1)")
	command := l.stopped("capture", "cannot be represented")
	effect := l.decide(command)
	skipped := effect["skipped"].(map[string]any)
	if skipped["transactions"] != 1.0 || skipped["changes"] != 1.0 || !strings.Contains(fmt.Sprint(skipped["stopped"]), "cannot be represented") {
		l.Errorf("it says %v", effect)
	}
	l.p.until("past it", func() bool {
		return query(l.T, l.pg, l.target, "SELECT count(*)::text FROM orders WHERE id = 201") == "1"
	})
	if got := query(l.T, l.pg, l.target, "SELECT (SELECT count(*) FROM orders WHERE id = 200) + (SELECT count(*) FROM items WHERE id = 200) || ''"); got != "0" {
		l.Errorf("%s rows of the transaction are there", got)
	}
	l.exec("DELETE FROM orders WHERE id = 200", "DELETE FROM items WHERE id = 200")
	l.equal()
}

// A constraint of the target stops the sink, which applies whole transactions.
func checkRefused(l *led) {
	sql(l.T, l.pg, l.target, "ALTER TABLE orders ADD CONSTRAINT cheap CHECK (price < 1000)")
	l.exec("INSERT INTO items VALUES (301, 'before')", "BEGIN; INSERT INTO items VALUES (300, 'with it'); INSERT INTO orders VALUES (300, 'dear', 5000); COMMIT",
		"INSERT INTO items VALUES (302, 'after')")
	command := l.stopped("sink", "cheap")
	effect := l.decide(command)
	if len(effect["partitions"].([]any)) != 3 { // of the transactions, and of both tables
		l.Errorf("it says %v", effect)
	}
	l.p.until("past it", func() bool {
		return query(l.T, l.pg, l.target, "SELECT count(*)::text FROM items WHERE id IN (301, 302)") == "2"
	})
	if got := query(l.T, l.pg, l.target, "SELECT (SELECT count(*) FROM orders WHERE id = 300) + (SELECT count(*) FROM items WHERE id = 300) || ''"); got != "0" {
		l.Errorf("%s rows of the transaction are there", got)
	}
	sql(l.T, l.pg, l.target, "ALTER TABLE orders DROP CONSTRAINT cheap")
	l.exec("UPDATE orders SET price = 6000 WHERE id = 300", "UPDATE items SET name = 'x' WHERE id = 300")
	l.equal()
}

// The slot is dropped by somebody: the tables are read anew.
func checkNewEpoch(l *led) {
	slot := settings{name: l.name}.slot()
	l.exec(fmt.Sprintf(`DO $$ BEGIN
		FOR i IN 1..2000 LOOP
			BEGIN
				PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '%[1]s' AND active;
				PERFORM pg_drop_replication_slot('%[1]s');
				RETURN;
			EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.005);
			END;
		END LOOP;
		RAISE 'the slot stays in use';
	END $$`, slot), "UPDATE orders SET note = 'unseen' WHERE id < 5", "DELETE FROM items WHERE id = 7")
	command := l.stopped("capture", "is gone")
	effect := l.decide(command)
	if effect["epoch"] != 2.0 || effect["reads_tables"] != true {
		l.Errorf("it says %v", effect)
	}
	l.equal()
}

// The process has ended: the command opens what it needs itself.
func checkWithoutProcess(l *led) {
	l.exec("INSERT INTO orders VALUES (400, 'y', 'NaN')", "INSERT INTO orders VALUES (401, 'after', 1)")
	command := l.stopped("capture", "cannot be represented")
	l.p.stop(syscall.SIGTERM, 1)
	l.decide(command)
	l.p = l.start(l.T)
	l.exec("DELETE FROM orders WHERE id = 400")
	l.equal()
}

// Each decision is in the audit log, twice.
func checkAudit(l *led, entries int) {
	code, stdout, stderr := execute("audit", "list", "-f", l.file)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if strings.Contains(stdout, "__") || code != 0 || len(lines) < entries+1 || !strings.Contains(stdout, "capture resolve  capture "+l.name) || !strings.Contains(stdout, "sink resolve     sink "+l.name) || !strings.Contains(stdout, "a test") {
		l.Errorf("audit list: %d %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = execute("audit", "verify", "-f", l.file, "-o", "json")
	var answer struct{ Result struct{ Head string } }
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || code != 0 || len(answer.Result.Head) != 64 {
		l.Errorf("audit verify: %d %s%s", code, stdout, stderr)
	}
	for hash, want := range map[string]int{answer.Result.Head: 0, strings.Repeat("0", 64): 4} {
		if code, stdout, stderr = execute("audit", "verify", "-f", l.file, "--hash", hash); code != want {
			l.Errorf("audit verify --hash %s: %d %s%s", hash, code, stdout, stderr)
		}
	}
}

// A type is changed in a way that the registry refuses: the schema is accepted, once.
func TestResolveSchema(t *testing.T) {
	t.Parallel()
	l := newLed(t, embeddedBroker(t))
	l.exec("INSERT INTO t VALUES (1, 'a')")
	l.tail(t, l.name+".public.t", 1)
	l.exec("ALTER TABLE t ALTER v TYPE int USING 7", "INSERT INTO t VALUES (2, 8)")
	effect := l.decide(l.stopped("capture", "registry answered 409"))
	if schema := effect["schema"].(map[string]any); schema["version"] != 1.0 || schema["subject"] != l.name+".public.t-value" {
		t.Errorf("it says %v", effect)
	}
	if got := rows(t, l.tail(t, l.name+".public.t", 2)); got[1].op != "c" {
		t.Errorf("got %+v", got)
	}
	l.exec("ALTER TABLE t ALTER v TYPE bool USING true", "INSERT INTO t VALUES (3, false)")
	l.stopped("capture", "registry answered 409")
}

// A topic was given more partitions: after the decision its keys go there, and the sink that
// runs all the while ends as the source.
func TestResolveRepartition(t *testing.T) {
	t.Parallel()
	broker := embeddedBroker(t)
	l := newLed(t, broker)
	address := regexp.MustCompile(`listen: "([^"]*)"`).FindStringSubmatch(broker)[1]
	topic := l.name + ".public.orders"
	morePartitions(t, address, topic, 7)
	l.exec("INSERT INTO orders SELECT i, 'more', i FROM generate_series(500, 600) i")
	l.equal()
	command := []string{"capture", "resolve", "--repartition", topic, "-f", l.file, "-o", "json", "--http-listen", l.http}
	if code, stdout, _ := execute(append(command, "--yes")...); code != 2 || !strings.Contains(stdout, "it has not stopped for good") {
		t.Fatalf("the capture runs, and yet: %d %s", code, stdout)
	}
	l.p.stop(syscall.SIGTERM, 0)
	l.decide(command)
	l.p = l.start(t)
	l.exec("UPDATE orders SET note = 'moved' WHERE id % 3 = 0", "DELETE FROM orders WHERE id % 7 = 0", "INSERT INTO orders SELECT i, 'new', i FROM generate_series(700, 800) i")
	l.equal()
	l.p.filled()
	l.exec("UPDATE orders SET note = 'at last'")
	l.equal()
	code, stdout, stderr := execute("topic", "tail", topic, "-f", l.file, "-o", "json", "--partition", "6", "--to-end", "--from", "beginning")
	if code != 0 || !strings.Contains(stdout, `"at last"`) {
		t.Errorf("nothing of it in the new partition: %d %s%s", code, stdout, stderr)
	}
}

// morePartitions gives a topic more partitions.
func morePartitions(t *testing.T, address, topic string, count int32) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = 5000
	one := kmsg.NewCreatePartitionsRequestTopic()
	one.Topic, one.Count = topic, count
	req.Topics = append(req.Topics, one)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil || resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("create partitions: %+v, %v", resp, err)
	}
}
