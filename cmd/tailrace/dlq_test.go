package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// shop is a source, a target that refuses v = 666, and a sink that parks.
type shop struct {
	*testing.T
	pg             *testenv.Postgres
	source, target string
	name           string
	in             *instance
}

func newShop(t *testing.T, broker string) *shop {
	t.Helper()
	return newShopAt(t, broker, ownRegistry(t), "sinks:\n  - { name: NAME, from: NAME, mode: keys, dead_letters: park, postgres: { url: \"TARGET\" } }\n")
}

// newShopAt has the registry and the sinks that it is given.
func newShopAt(t *testing.T, broker, registry, sinks string) *shop {
	t.Helper()
	pg := testenv.SharedPostgres(t)
	s := &shop{T: t, pg: pg, source: pg.CreateDatabase(t), target: pg.CreateDatabase(t), name: testenv.Unique("dlq")}
	table := "CREATE TABLE orders (id bigint PRIMARY KEY, v int, note text"
	sql(t, pg, s.source, table+")")
	sql(t, pg, s.target, table+", CONSTRAINT mended CHECK (v <> 666))")
	s.in = settings{name: s.name, broker: broker, registry: registry, url: pg.AdminURL(s.source),
		more: "    snapshot: never\n" + strings.NewReplacer("NAME", s.name, "TARGET", inFile(t, pg.AdminURL(s.target))).Replace(sinks)}.configure(t)
	return s
}

func (s *shop) equal() bool { return sameTables(s.T, s.pg, s.source, s.target, "orders") == "" }

func (s *shop) mend() { sql(s.T, s.pg, s.target, "ALTER TABLE orders DROP CONSTRAINT mended") }

// dlqAnswer is what the commands answer.
type dlqAnswer struct {
	OK      bool
	Summary string
	Result  struct {
		Letters int
		Counts  []struct {
			Topic, Cause           string
			Keys, Letters, Waiting int
		}
		Keys     json.RawMessage
		State    string
		Applied  int
		Dropped  int
		Again    int `json:"refused_again"`
		Letter   *struct{ State, Topic string }
		Outcome  *struct{ Reason string }
		Record   *struct{ Key, Value json.RawMessage }
		Position string
	}
	Error *struct{ Message, Hint string }
}

// dlq runs a command and reads its answer.
func (s *shop) dlq(code int, args ...string) dlqAnswer {
	s.Helper()
	got, stdout, stderr := execute(append([]string{"dlq", "-f", s.in.file, "-o", "json"}, args...)...)
	var a dlqAnswer
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		s.Fatalf("dlq %v: %v: %s%s", args, err, stdout, stderr)
	}
	if got != code {
		s.Errorf("dlq %v ended with %d, want %d: %s%s", args, got, code, stdout, stderr)
	}
	return a
}

// parked waits until so many letters of so many keys are parked.
func (s *shop) parked(p *process, letters, keys int) {
	s.Helper()
	p.until(fmt.Sprintf("parking %d letters of %d keys", letters, keys), func() bool {
		_, body := p.get("/metrics")
		return strings.Contains(body, fmt.Sprintf("tailrace_dlq_parked_records{sink=%q} %d\n", s.name, letters)) &&
			strings.Contains(body, fmt.Sprintf("tailrace_dlq_parked_keys{sink=%q} %d\n", s.name, keys))
	})
}

// where returns the positions of the keys that wait.
func (s *shop) where() (positions []string) {
	s.Helper()
	var keys []struct{ Position string }
	if err := json.Unmarshal(s.dlq(0, "list").Result.Keys, &keys); err != nil {
		s.Fatal(err)
	}
	for _, k := range keys {
		positions = append(positions, k.Position)
	}
	return positions
}

// One poison row in 10,000: its key waits, 9,999 are applied; after mending a retry applies
// it and what waited behind it, in order.
func TestDeadLetters(t *testing.T) {
	s := newShop(t, embeddedBroker(t))
	p := s.in.start(t)
	p.capturing()
	sql(t, s.pg, s.source, "INSERT INTO orders SELECT i, CASE WHEN i = 4711 THEN 666 ELSE i % 100 END, 'n' FROM generate_series(1, 10000) i")
	rows := func() string { return query(t, s.pg, s.target, "SELECT count(*)::text FROM orders") }
	p.until("applying 9,999", func() bool { return rows() == "9999" })
	s.parked(p, 1, 1)
	sql(t, s.pg, s.source, "UPDATE orders SET note = 'waits' WHERE id = 4711", "UPDATE orders SET note = 'goes on' WHERE id = 4712")
	p.until("going on", func() bool { return query(t, s.pg, s.target, "SELECT note FROM orders WHERE id = 4712") == "goes on" })
	s.parked(p, 2, 1)
	if code, body := p.get("/status"); code != http.StatusOK || !strings.Contains(body, `"letters": 2`) {
		t.Errorf("status: %d %s", code, body)
	}
	list := s.dlq(0, "list")
	if c := list.Result.Counts; len(c) != 1 || c[0].Cause != "23514" || c[0].Keys != 1 || c[0].Letters != 2 || c[0].Waiting != 1 {
		t.Errorf("list: %+v", list)
	}
	position := s.where()[0]
	shown := s.dlq(0, "show", position)
	if shown.Result.Letter == nil || shown.Result.Letter.State != "refused" || string(shown.Result.Record.Key) != `{"id":4711}` && !strings.Contains(string(shown.Result.Record.Key), "4711") {
		t.Errorf("show: %+v", shown)
	}
	for _, args := range [][]string{{"list"}, {"list", "--keys"}, {"show", position}} {
		code, stdout, stderr := execute(append([]string{"dlq", "-f", s.in.file}, args...)...)
		if code != 0 || !strings.Contains(stdout, "shop") && !strings.Contains(stdout, s.name) {
			t.Errorf("dlq %v: %d %s%s", args, code, stdout, stderr)
		}
	}
	if a := s.dlq(1, "retry", "--wait", "60s"); a.Result.Again != 1 || a.Result.Applied != 0 || !strings.Contains(a.Error.Hint, "dlq list") {
		t.Errorf("a retry in vain: %+v", a)
	}
	s.mend()
	if a := s.dlq(0, "retry", "--table", "public.orders", "--key", "4711", "--wait", "60s"); a.Result.State != "done" || a.Result.Applied != 2 {
		t.Errorf("retry: %+v", a)
	}
	if !s.equal() {
		t.Error(sameTables(t, s.pg, s.source, s.target, "orders"))
	}
	s.parked(p, 0, 0)
	s.dlq(2, "retry", "--position", position)
	s.dlq(2, "drop")
	s.dlq(2, "show", "nonsense")
	s.dlq(2, "list", "--sink", "nobody")
	p.stop(syscall.SIGTERM, 0)
	dropSlot(t, s.pg, s.source, settings{name: s.name}.slot())
}

// What is asked for while the sink is down waits, and says so. A drop keeps its reason.
func TestDeadLettersDropped(t *testing.T) {
	broker := kafkaBroker(t)
	s := newShop(t, broker)
	p := s.in.start(t)
	p.capturing()
	sql(t, s.pg, s.source, "INSERT INTO orders VALUES (1, 1, 'a'), (2, 666, 'b'), (3, 666, 'c'), (4, 4, 'd')")
	s.parked(p, 2, 2)
	sql(t, s.pg, s.source, "UPDATE orders SET v = 22 WHERE id = 2", "UPDATE orders SET v = 33 WHERE id = 3")
	s.parked(p, 4, 2)
	positions := s.where()
	if len(positions) != 2 {
		t.Fatalf("the keys that wait stand at %v", positions)
	}
	p.stop(syscall.SIGTERM, 0)
	drop := positions[0]
	if a := s.dlq(0, "drop", "--position", drop, "--reason", "not wanted", "--yes", "--wait", "0s"); a.Result.State != "waiting" || !strings.Contains(a.Summary, "when it runs") {
		t.Errorf("a drop while the sink is down: %+v", a)
	}
	second := s.in.start(t)
	s.parked(second, 2, 1)
	second.until("applying what waited", func() bool {
		have := query(t, s.pg, s.target, "SELECT string_agg(id || '=' || v, ' ' ORDER BY id) FROM orders")
		return have == "1=1 2=22 4=4" || have == "1=1 3=33 4=4"
	})
	if a := s.dlq(0, "drop", "--all", "--with-waiting", "--yes", "--wait", "60s"); a.Result.Dropped != 2 {
		t.Errorf("drop: %+v", a)
	}
	reasons := ""
	for _, position := range positions {
		a := s.dlq(0, "show", position)
		if a.Result.Outcome == nil {
			t.Fatalf("show %s: %+v", position, a)
		}
		reasons += a.Result.Outcome.Reason
	}
	if reasons != "not wanted" {
		t.Errorf("the reasons are %q", reasons)
	}
	sql(t, s.pg, s.source, "UPDATE orders SET v = v + 1 WHERE id IN (2, 3)")
	second.until("equal", s.equal)
	second.stop(syscall.SIGTERM, 0)
	dropSlot(t, s.pg, s.source, settings{name: s.name}.slot())
}
