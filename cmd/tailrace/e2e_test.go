package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/show"
	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
)

// row is what the tests want to know of a record of the table orders.
type row struct {
	op   string // "-" for a tombstone
	id   int64
	note string // after, or before for a delete
}

// rows reads records, and checks that each partition counts without a gap.
func rows(t *testing.T, records []show.Record) []row {
	t.Helper()
	var out []row
	n := map[int32]uint64{}
	for _, r := range records {
		if n[r.Partition]++; r.Mark == nil || r.Mark.N != n[r.Partition] {
			t.Errorf("partition %d: got %+v, want n = %d", r.Partition, r.Mark, n[r.Partition])
		}
		var key struct{ ID int64 }
		var value struct {
			Op            string
			Before, After struct{ Note *string }
		}
		if json.Unmarshal(r.Key, &key) != nil || !r.Tombstone && json.Unmarshal(r.Value, &value) != nil {
			t.Fatalf("cannot read %+v", r)
		}
		one := row{op: value.Op, id: key.ID}
		if r.Tombstone {
			one.op = "-"
		}
		if value.After.Note != nil {
			one.note = *value.After.Note
		}
		out = append(out, one)
	}
	return out
}

// sorted puts rows in an order that does not depend on their partitions, and keeps the
// order of each key's.
func sorted(list []row) []row {
	slices.SortStableFunc(list, func(a, b row) int { return int(a.id - b.id) })
	return list
}

// From `tailrace run` to `topic tail`: every change once, in order, over a stop and a
// start; and what the other commands say meanwhile.
func TestEndToEnd(t *testing.T) {
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
			exec("CREATE TABLE orders (id bigint PRIMARY KEY, note text, price numeric(10,2))")
			capture := testenv.Unique("e2e")
			in := settings{name: capture, broker: broker(t), registry: ownRegistry(t), url: pg.AdminURL(db)}.configure(t)
			topic := capture + ".public.orders"

			first := in.start(t)
			first.ready()
			exec("INSERT INTO orders SELECT i, 'new', i * 1.5 FROM generate_series(1, 4) i",
				"UPDATE orders SET note = 'changed' WHERE id = 2", "DELETE FROM orders WHERE id = 3", "UPDATE orders SET id = 9 WHERE id = 4")
			want := []row{{"c", 1, "new"}, {"c", 2, "new"}, {"u", 2, "changed"}, {"c", 3, "new"}, {"d", 3, ""}, {"-", 3, ""},
				{"c", 4, "new"}, {"d", 4, ""}, {"-", 4, ""}, {"c", 9, "new"}}
			got := in.tail(t, topic, len(want), "--from", "beginning")
			if list := sorted(rows(t, got)); !slices.Equal(list, want) {
				t.Errorf("got  %v\nwant %v", list, want)
			}
			checkKeyChange(t, got)
			checkEnds(t, in.tail(t, capture+".transaction", 4), got)
			checkCommands(t, first, capture, topic)
			first.stop(syscall.SIGTERM, 0)

			exec("INSERT INTO orders VALUES (5, 'while stopped', 1)")
			second := in.start(t)
			second.ready()
			exec("INSERT INTO orders VALUES (6, 'later', NULL)")
			want = append(want[:9:9], row{"c", 5, "while stopped"}, row{"c", 6, "later"}, row{"c", 9, "new"})
			if list := sorted(rows(t, in.tail(t, topic, len(want)))); !slices.Equal(list, want) {
				t.Errorf("after a start: got  %v\nwant %v", list, want)
			}
			if list := in.tail(t, topic, 100, "--to-end"); len(list) != len(want) {
				t.Errorf("%d records to the end, want %d", len(list), len(want))
			}
			second.stop(syscall.SIGINT, 130)
			dropSlot(t, pg, db, settings{name: capture}.slot())
		})
	}
}

// dropSlot gives the slot back, since the server is shared.
func dropSlot(t *testing.T, pg *testenv.Postgres, db, slot string) {
	t.Helper()
	err := pg.Exec(context.WithoutCancel(t.Context()), db,
		fmt.Sprintf("SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = '%s' AND active", slot), // whose client was killed
		fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", slot))
	if err != nil {
		t.Error(err)
	}
}

// checkKeyChange looks for the headers of a key change.
func checkKeyChange(t *testing.T, records []show.Record) {
	t.Helper()
	var seen []string
	for _, r := range records {
		for _, h := range []string{"__debezium.newkey", "__debezium.oldkey"} {
			if v, ok := r.Headers[h]; ok {
				seen = append(seen, string(r.Key)+" "+h+" "+v)
			}
		}
	}
	slices.Sort(seen)
	want := []string{`{"id":4} __debezium.newkey {"id":9}`, `{"id":4} __debezium.newkey {"id":9}`, `{"id":9} __debezium.oldkey {"id":4}`}
	if !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}
}

// checkEnds compares the END records with the records of the topic: each names the last
// row of its transaction in each partition.
func checkEnds(t *testing.T, ends, records []show.Record) {
	t.Helper()
	last := map[string]uint64{}
	for _, r := range records {
		at := fmt.Sprint(r.Mark.Pos, r.Topic, r.Partition)
		last[at] = max(last[at], r.Mark.Row)
	}
	parts := 0
	for _, e := range ends {
		if !slices.Equal(e.Mark.Flags, []string{"end"}) {
			t.Errorf("flags are %v", e.Mark.Flags)
		}
		for _, p := range e.Mark.Parts {
			parts++
			if want := last[fmt.Sprint(e.Mark.Pos, p.Topic, p.Partition)]; p.Row != want {
				t.Errorf("END of %d says row %d in %s/%d, want %d", e.Mark.Pos, p.Row, p.Topic, p.Partition, want)
			}
		}
	}
	if parts != len(last) {
		t.Errorf("ENDs name %d partitions, want %d", parts, len(last))
	}
}

// checkCommands asks the running process and its broker.
func checkCommands(t *testing.T, p *process, capture, topic string) {
	t.Helper()
	code, stdout, stderr := execute("topic", "list", "-f", p.file)
	if code != 0 || !strings.Contains(stdout, topic+" ") || strings.Contains(stdout, "__tailrace") {
		t.Errorf("topic list: %d %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = execute("capture", "status", "-f", p.file, "--check")
	if code != 0 || !strings.Contains(stdout, capture) || !strings.Contains(stdout, "running") {
		t.Errorf("capture status: %d %s%s", code, stdout, stderr)
	}
	if code, body := p.get("/metrics"); code != 200 || !strings.Contains(body, fmt.Sprintf(`tailrace_capture_events_total{capture=%q,op="create"} 5`, capture)) {
		t.Errorf("metrics: %d %s", code, body)
	}
	if code, stdout, _ = execute("topic", "tail", topic, "-f", p.file, "--to-end", "--partition", "99"); code != 2 {
		t.Errorf("no such partition: %d %s", code, stdout)
	}
	if code, _, stderr = execute("topic", "tail", "no-such-topic", "-f", p.file); code != 3 || !strings.Contains(stderr, "does not exist") {
		t.Errorf("no such topic: %d %s", code, stderr)
	}
	if code, stdout, _ = execute("topic", "tail", topic, "-f", p.file, "--to-end"); code != 0 || !strings.Contains(stdout, "tombstone") || !strings.Contains(stdout, `{"id":2,"note":"changed","price":"3.00"}`) {
		t.Errorf("tail as a table: %d\n%s", code, stdout)
	}
}

// switchable is a registry that can be taken down: then every request is answered 503, as
// by a proxy before it.
type switchable struct {
	http.Handler
	down  atomic.Bool
	asked atomic.Int64 // while it was down
}

func (s *switchable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.down.Load() {
		s.asked.Add(1)
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	s.Handler.ServeHTTP(w, r)
}

// newRegistry serves a registry that can be taken down.
func newRegistry(t *testing.T) (*switchable, string) {
	t.Helper()
	server, err := registry.NewServer(t.Context(), registrytest.NewLog(), registry.ServerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	s := &switchable{Handler: server}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	return s, web.URL
}

// The registry goes down as a new table comes, and comes back: the capture waits for it,
// and nothing is lost.
func TestRegistryDownAndBack(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	reg, url := newRegistry(t)
	exec := func(sql ...string) {
		t.Helper()
		if err := pg.Exec(t.Context(), db, sql...); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
	s := settings{name: testenv.Unique("reg"), broker: embeddedBroker(t), registry: fmt.Sprintf("{ url: %q }", url), url: pg.AdminURL(db)}
	in := s.configure(t)
	p := in.start(t)
	p.ready()
	exec("INSERT INTO orders VALUES (1, 'before')")
	in.tail(t, s.name+".public.orders", 1)

	reg.down.Store(true)
	exec("ALTER TABLE orders ADD COLUMN more int", "INSERT INTO orders VALUES (2, 'meanwhile', 7)", "INSERT INTO orders VALUES (3, 'after', 8)")
	p.until("asking the registry", func() bool { return reg.asked.Load() > 2 })
	reg.down.Store(false)
	want := []row{{"c", 1, "before"}, {"c", 2, "meanwhile"}, {"c", 3, "after"}}
	if got := sorted(rows(t, in.tail(t, s.name+".public.orders", 3))); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	p.ready()
	p.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}

// A second signal ends the process at once, whatever it is waiting for.
func TestSecondSignal(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	if err := pg.Exec(t.Context(), db, "CREATE TABLE orders (id bigint PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	in := settings{name: testenv.Unique("second"), broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(db)}.configure(t)
	p := in.start(t)
	p.until("listening", func() bool { code, _ := p.get("/livez"); return code == 200 })
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 && code != 143 {
		t.Errorf("exit code %d", code)
	}
}

// One data directory and one port are for one process.
func TestTwoProcesses(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	if err := pg.Exec(t.Context(), db, "CREATE TABLE orders (id bigint PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	broker := embeddedBroker(t)
	s := settings{name: testenv.Unique("two"), broker: broker, registry: ownRegistry(t), url: pg.AdminURL(db)}
	in := s.configure(t)
	p := in.start(t)
	p.ready()
	if again := in.start(t); again.exit() != 3 || !strings.Contains(again.log.String(), "error: listen for http on "+in.http) {
		t.Errorf("same port: %d %s", again.exit(), again.log.String())
	}
	s.registry = ownRegistry(t)
	if again := s.configure(t).start(t); again.exit() != 3 || !strings.Contains(again.log.String(), filepath.Base(filepath.Dir(broker))) && !strings.Contains(again.log.String(), "hint: ") {
		t.Errorf("same directory: %d %s", again.exit(), again.log.String())
	}
	p.ready()
	p.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}
