package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// backfillAnswer is what `backfill list` and `status` answer.
type backfillAnswer struct {
	OK     bool
	Result struct {
		Backfills []capture.Backfill
		Requests  []capture.Command
		Command   string
		Carried   bool
		Backfill  *capture.Backfill
	}
	Error *struct{ Message, Hint string }
}

// ask runs a command of the backfills and reads its answer.
func (i *instance) ask(t *testing.T, code int, args ...string) backfillAnswer {
	t.Helper()
	got, stdout, stderr := execute(append([]string{"backfill", "-f", i.file, "-o", "json"}, args...)...)
	var a backfillAnswer
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		t.Fatalf("backfill %v: %v: %s%s", args, err, stdout, stderr)
	}
	if got != code {
		t.Errorf("backfill %v ended with %d, want %d: %s%s", args, got, code, stdout, stderr)
	}
	return a
}

// one returns where a backfill stands.
func (i *instance) one(t *testing.T, id string) capture.Backfill {
	t.Helper()
	for _, b := range i.ask(t, 0, "list").Result.Backfills {
		if b.ID == id {
			return b
		}
	}
	t.Fatalf("there is no backfill %s", id)
	return capture.Backfill{}
}

// untilState waits until a backfill is in a state.
func (p *process) untilState(id string, want capture.BackfillState) (b capture.Backfill) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s %s", id, want), func() bool {
		b = p.one(p.t, id)
		return b.State == want
	})
	return b
}

// start asks for a backfill and returns its id.
func (p *process) backfill(args ...string) string {
	p.t.Helper()
	a := p.ask(p.t, 0, append([]string{"start"}, args...)...)
	if !a.OK || !a.Result.Carried || a.Result.Backfill == nil {
		p.t.Fatalf("backfill %v: %+v", args, a)
	}
	return a.Result.Backfill.ID
}

// failing asks for a backfill that fails, be it at once or a moment later, and returns it.
func (p *process) failing(args ...string) (failed capture.Backfill) {
	p.t.Helper()
	before := len(p.ask(p.t, 0, "list").Result.Backfills)
	execute(append([]string{"backfill", "start", "-f", p.file}, args...)...)
	p.until(fmt.Sprintf("failed: %v", args), func() bool {
		list := p.ask(p.t, 0, "list").Result.Backfills
		if len(list) == before {
			return false
		}
		failed = list[len(list)-1]
		return failed.State == capture.BackfillFailed
	})
	return failed
}

// What is wrong with a request is said clearly, and everything else goes on: the log, the
// other backfills, and the one that failed once its cause is mended.
func TestBackfillCommands(t *testing.T) {
	t.Parallel()
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	user := strings.ReplaceAll(testenv.Unique("bf"), "-", "_")
	sql(t, pg, db, "CREATE TABLE orders (id int PRIMARY KEY, v int)", "INSERT INTO orders SELECT i, 0 FROM generate_series(1, 5000) i",
		"CREATE TABLE parts (region text, id int, v int, PRIMARY KEY (region, id))", "INSERT INTO parts SELECT chr(97 + i % 5), i, 0 FROM generate_series(1, 500) i",
		"CREATE TABLE secret (id int PRIMARY KEY)", "INSERT INTO secret SELECT generate_series(1, 100)",
		"CREATE TABLE gone (id int PRIMARY KEY)", "INSERT INTO gone SELECT generate_series(1, 100)",
		fmt.Sprintf("CREATE ROLE %s LOGIN REPLICATION PASSWORD 'pw-4711'", user), "GRANT SELECT ON orders, parts, gone TO "+user)
	s := settings{name: testenv.Unique("fill"), broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.URL(user, "pw-4711", db),
		more: "    snapshot: never\n", postgres: ", create_publication: false"}
	sql(t, pg, db, fmt.Sprintf("CREATE PUBLICATION %s FOR ALL TABLES", s.slot()))
	p := s.configure(t).start(t)
	p.ready()
	p.until("tables known", func() bool { // refused by name from then on; before, it fails when the table is looked at
		code, _, stderr := execute("backfill", "start", "--table", "public.nope", "-f", p.file)
		return code == 2 && strings.Contains(stderr, "does not have table public.nope") && strings.Contains(stderr, "hint: add it to the capture's tables")
	})
	for _, bad := range [][]string{{"start", "--table", "orders"}, {"start"}, {"start", "--table", "public.orders", "--from-key", "[{}]"},
		{"start", "--table", "public.orders", "--to-topic", s.name + ".public.orders"}, {"start", "--table", "public.orders", "--rate", "-1"},
		{"start", "--table", "public.orders", "--capture", "nope"}, {"pause", "nope"}, {"cancel", "--yes", "nope"}, {"cancel", "nope"},
		{"status", "nope"}, {"status", "a", "b"}, {"status", "--every", "0s"}, {"pause"}} {
		if a := p.ask(t, 2, bad...); a.Error == nil || a.Error.Message == "" || a.Error.Hint == "" {
			t.Errorf("%v: %+v", bad, a.Error)
		}
	}

	fails := func(args ...string) capture.Backfill {
		t.Helper()
		a := p.ask(t, 1, append([]string{"start"}, args...)...)
		if a.Error == nil || !strings.Contains(a.Error.Hint, "backfill resume ") {
			t.Fatalf("%v: %+v", args, a.Error)
		}
		_, id, _ := strings.Cut(a.Error.Hint, "backfill resume ")
		b := p.one(t, id)
		if b.State != capture.BackfillFailed || !strings.Contains(a.Error.Message, b.Error) || !strings.Contains(a.Error.Hint, b.Hint) {
			t.Errorf("%v: said %+v, is %+v", args, a.Error, b)
		}
		return b
	}
	where := fails("--table", "public.orders", "--where", "id < 10) UNION SELECT 1, 2 WHERE (true")
	key := fails("--table", "public.parts", "--from-key", "a")
	denied := fails("--table", "public.secret")
	if !strings.Contains(where.Error, "condition") || !strings.Contains(key.Error, "key") || !strings.Contains(denied.Hint, "GRANT SELECT") {
		t.Errorf("where: %q, key: %q, denied: %q", where.Error, key.Error, denied.Hint)
	}
	for _, b := range []capture.Backfill{where, key} {
		p.ask(t, 0, "cancel", "--yes", b.ID)
	}
	sql(t, pg, db, "GRANT SELECT ON secret TO "+user)
	p.ask(t, 0, "resume", denied.ID)
	if b := p.untilState(denied.ID, capture.BackfillDone); b.Rows != 100 {
		t.Errorf("%d rows of secret", b.Rows)
	}

	slow := p.backfill("--table", "public.orders", "--rate", "400")
	if a := p.ask(t, 2, "start", "--table", "public.orders"); !strings.Contains(a.Error.Message, slow) {
		t.Errorf("a second one on the table: %+v", a.Error)
	}
	p.until("some rows read", func() bool { return p.one(t, slow).Read > 0 })
	p.ask(t, 0, "pause", slow)
	paused := p.one(t, slow)
	part := *p.ask(t, 0, "start", "--wait", "--table", "public.parts", "--from-key", `["b", 100]`, "--to-key", `["c", 200]`, "--where", "v = 0", "--to-topic", "mine-"+s.name).Result.Backfill
	if now := p.one(t, slow); now.State != capture.BackfillPaused || now.Read != paused.Read || now.Read >= 5000 {
		t.Errorf("it is %s with %d rows, paused with %d", now.State, now.Read, paused.Read)
	}
	if list := p.ask(t, 0, "status", "--watch").Result.Backfills; len(list) == 0 || list[len(list)-1].ID != slow { // nothing is under way
		t.Errorf("the status has %+v", list)
	}
	p.ask(t, 0, "cancel", "--yes", slow)

	dropped := p.backfill("--table", "public.gone", "--rate", "4")
	p.until("some rows of gone read", func() bool { return p.one(t, dropped).Read > 0 })
	sql(t, pg, db, "DROP TABLE gone", "INSERT INTO orders VALUES (9000, 1)")
	if b := p.untilState(dropped, capture.BackfillFailed); b.Error == "" || b.Hint == "" {
		t.Errorf("a table that was dropped: %+v", b)
	}
	p.until("past what came after the drop", func() bool {
		return fold(t, p.tail(t, s.name+".public.orders", 1<<30, "--to-end", "--from", "beginning")).ops["c"] == 1
	})
	mine := fold(t, p.tail(t, "mine-"+s.name, 1<<30, "--to-end", "--from", "beginning"))
	want := 0
	for i := 1; i <= 500; i++ {
		if r := i % 5; r == 1 && i > 100 || r == 2 && i <= 200 {
			want++
		}
	}
	if mine.ops["r"] != want || part.Rows != int64(want) {
		t.Errorf("mine %v, want %d", mine.ops, want)
	}
	p.stop(syscall.SIGTERM, 0)
	for _, gone := range [][]string{{"list"}, {"start", "--table", "public.orders"}} { // the broker is gone with its process
		if a := p.ask(t, 3, gone...); a.Error == nil || !strings.Contains(a.Error.Hint, "while `tailrace run` runs") {
			t.Errorf("%v: %+v", gone, a.Error)
		}
	}
	dropSlot(t, pg, db, s.slot())
}

// A request to a capture that does not run waits for it in Kafka, and says so.
func TestBackfillRequestWaits(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id int PRIMARY KEY, v int)", "INSERT INTO orders SELECT i, 0 FROM generate_series(1, 500) i")
	s := settings{name: testenv.Unique("wait"), broker: kafkaBroker(t), registry: ownRegistry(t), url: pg.AdminURL(db), more: "    snapshot: never\n"}
	in := s.configure(t)
	if a := in.ask(t, 2, "start", "--table", "public.orders"); !strings.Contains(a.Error.Message, "never run") {
		t.Errorf("a capture that has never run: %+v", a.Error)
	}
	first := in.start(t)
	first.ready()
	first.stop(syscall.SIGTERM, 0)
	a := in.ask(t, 0, "start", "--table", "public.orders")
	if a.Result.Carried || a.Result.Backfill != nil {
		t.Fatalf("carried out by nobody: %+v", a)
	}
	for _, r := range in.ask(t, 0, "list").Result.Requests {
		a.Result.Requests = append(a.Result.Requests, r)
		if one := in.ask(t, 0, "status", r.ID).Result; len(one.Requests) != 1 || len(one.Backfills) != 0 {
			t.Errorf("the request alone: %+v", one)
		}
	}
	if r := a.Result.Requests; len(r) != 1 || r[0].ID != a.Result.Command || r[0].Name != "orders" || !strings.Contains(r[0].By, "@") {
		t.Errorf("requests that wait: %+v", r)
	}
	second := in.start(t)
	second.until("done", func() bool {
		now := in.ask(t, 0, "list").Result
		return len(now.Requests) == 0 && len(now.Backfills) == 1 && now.Backfills[0].State == capture.BackfillDone && now.Backfills[0].Rows == 500
	})
	second.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}
