package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// killable compiles tailrace with its failpoints.
func killable(t *testing.T) string {
	t.Helper()
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "tailrace")
	cmd := exec.Command("go", "build", "-tags", "failpoint", "-o", bin, "./cmd/tailrace")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// journaled has the target note each change of orders as it is applied.
const journaled = `CREATE TABLE journal (n bigserial, id bigint, v int);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO journal (id, v) VALUES (NEW.id, NEW.v); RETURN NULL; END $$;
	CREATE TRIGGER note AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION note()`

// member is a process that only has the shop's sink; it dies at a failpoint's k-th passage.
func (s *shop) member(bin, registry, broker, failpoint string) *process {
	s.Helper()
	i := &instance{file: filepath.Join(s.TempDir(), "sink.yaml"), http: freeAddress(s.T), url: s.pg.AdminURL(s.target)}
	text := fmt.Sprintf("broker: %s\nregistry: { url: \"http://%s\" }\nhttp: { listen: %s }\nlog: { level: debug }\nsinks:\n  - { name: %s, from: %s, mode: keys, dead_letters: park, postgres: { url: %q } }\n",
		broker, registry, i.http, s.name, s.name, inFile(s.T, i.url))
	if err := os.WriteFile(i.file, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	s.in = i
	p := &process{instance: i, t: s.T, cmd: exec.Command(bin, "run", "-f", i.file), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "TAILRACE_FAILPOINT="+failpoint)
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // who kills it asks how it ended
	}()
	s.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if s.Failed() {
			s.Logf("log of a member:\n%s", p.log.String())
		}
	})
	return p
}

// died waits until a process has killed itself.
func (p *process) died() {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("is not killed\n%s", p.log.String())
	}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
		p.t.Fatalf("ended by itself: %v\n%s", p.cmd.ProcessState, p.log.String())
	}
}

// The sink is killed at the worst moments: a letter is durable and the position before it; an
// outcome is written and does not count; the rows of a retry are applied and nobody was told.
// Each time another member goes on; nothing is lost, twice, or out of order.
func TestDeadLettersKilled(t *testing.T) {
	t.Parallel()
	bin, broker, registry := killable(t), kafkaBroker(t), freeAddress(t)
	s := newShopAt(t, broker, fmt.Sprintf("{ serve: %q, topic: %s }", registry, testenv.Unique("schemas")), "")
	sql(t, s.pg, s.target, journaled)
	capture := s.in.start(t)
	capture.ready()
	slot := settings{name: s.name}.slot()
	sql(t, s.pg, s.source, "INSERT INTO orders SELECT i, CASE WHEN i % 10 = 0 THEN 666 ELSE 1 END, 'n' FROM generate_series(1, 50) i")
	for _, failpoint := range []string{"dlq-written:1", "dlq-written:2", "sink-before-commit:3", "sink-after-commit:3"} {
		s.member(bin, registry, broker, failpoint).died()
	}
	p := s.member(bin, registry, broker, "")
	s.parked(p, 5, 5)
	for v := 2; v < 6; v++ {
		sql(t, s.pg, s.source, fmt.Sprintf("UPDATE orders SET v = %d WHERE id IN (10, 11, 20, 30)", v))
		p.until("applied", func() bool {
			return query(t, s.pg, s.target, "SELECT v::text FROM orders WHERE id = 11") == fmt.Sprint(v)
		})
	}
	s.parked(p, 17, 5)
	p.stop(syscall.SIGTERM, 0)
	s.mend()
	for i, failpoint := range []string{"dlq-intended:1", "sink-before-commit:1", "sink-after-commit:1", "dlq-applied:1", "dlq-applied:2"} {
		if i == 0 {
			if a := s.dlq(0, "retry", "--wait", "0s"); a.Result.State != "waiting" {
				t.Errorf("a request while no sink runs: %+v", a)
			}
		}
		s.member(bin, registry, broker, failpoint).died()
	}
	p = s.member(bin, registry, broker, "")
	p.until("equal", s.equal)
	s.parked(p, 0, 0)
	sql(t, s.pg, s.source, "UPDATE orders SET v = 6 WHERE id IN (10, 11, 20, 30)")
	p.until("equal at the end", s.equal)
	// The journal has each state of a row that a batch ended with, once, and in order.
	if wrong := query(t, s.pg, s.target, `SELECT coalesce(string_agg(id || ':' || vs, ' '), '') FROM
		(SELECT id, string_agg(v::text, ',' ORDER BY n) vs FROM journal GROUP BY id) j
		WHERE vs <> CASE WHEN id = 11 THEN '1,2,3,4,5,6' WHEN id IN (10, 20, 30) THEN '5,6' WHEN id IN (40, 50) THEN '666' ELSE '1' END`); wrong != "" {
		t.Errorf("the target went through %s", wrong)
	}
	p.stop(syscall.SIGTERM, 0)
	capture.stop(syscall.SIGTERM, 0)
	dropSlot(t, s.pg, s.source, slot)
}

// Two members share the partitions. What is parked stays parked, whoever has it, also when
// one dies.
func TestDeadLettersOfTwoMembers(t *testing.T) {
	t.Parallel()
	bin, broker, registry := killable(t), kafkaBroker(t), freeAddress(t)
	s := newShopAt(t, broker, fmt.Sprintf("{ serve: %q, topic: %s }", registry, testenv.Unique("schemas")), "")
	sql(t, s.pg, s.target, journaled)
	capture := s.in.start(t)
	capture.ready()
	slot := settings{name: s.name}.slot()
	sql(t, s.pg, s.source, "INSERT INTO orders SELECT i, CASE WHEN i % 10 = 0 THEN 666 ELSE 1 END, 'n' FROM generate_series(1, 200) i")
	first := s.member(bin, registry, broker, "")
	s.parked(first, 20, 20)
	second := s.member(bin, registry, broker, "")
	both := func() (letters int) {
		for _, p := range []*process{first, second} {
			var n int
			_, body := p.get("/metrics")
			_, rest, _ := bytes.Cut([]byte(body), []byte(fmt.Sprintf("tailrace_dlq_parked_records{sink=%q} ", s.name)))
			if _, err := fmt.Sscan(string(rest), &n); err != nil || n == 0 {
				return 0 // it has no part yet
			}
			letters += n
		}
		return letters
	}
	second.until("sharing what is parked", func() bool { return both() == 20 })
	sql(t, s.pg, s.source, "UPDATE orders SET v = 2")
	second.until("applying", func() bool { return query(t, s.pg, s.target, "SELECT count(*)::text FROM orders WHERE v = 2") == "180" })
	second.until("parking the later changes", func() bool { return both() == 40 })
	if n := query(t, s.pg, s.target, "SELECT count(*)::text FROM orders"); n != "180" {
		t.Errorf("the target has %s rows, want 180", n)
	}
	send(t, second, syscall.SIGKILL)
	second.died()
	s.parked(first, 40, 20)
	sql(t, s.pg, s.source, "UPDATE orders SET v = 3")
	first.until("applying alone", func() bool { return query(t, s.pg, s.target, "SELECT count(*)::text FROM orders WHERE v = 3") == "180" })
	s.parked(first, 60, 20)
	s.mend()
	if a := s.dlq(0, "retry", "--wait", "60s"); a.Result.State != "done" || a.Result.Applied != 60 {
		t.Errorf("retry: %+v", a)
	}
	first.until("equal", s.equal)
	if twice := query(t, s.pg, s.target, "SELECT count(*)::text FROM (SELECT FROM journal GROUP BY id, v HAVING count(*) > 1) x"); twice != "0" {
		t.Errorf("%s changes were applied twice", twice)
	}
	first.stop(syscall.SIGTERM, 0)
	if text := first.log.String(); strings.Contains(text, `"level":"ERROR"`) {
		t.Errorf("errors in the log:\n%s", text)
	}
	capture.stop(syscall.SIGTERM, 0)
	dropSlot(t, s.pg, s.source, slot)
}
