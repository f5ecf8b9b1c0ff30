package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// inbox is an application that takes events: it keeps the order in which those of each key
// came for the first time.
type inbox struct {
	mu      sync.Mutex
	met     map[string]bool
	rows    map[string][]string // op and note, by table and key
	refuses string              // a note whose change is answered with 422
}

func (b *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var e struct {
		Op, Schema, Table string
		Key, After        map[string]any
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &e) != nil || r.Header.Get("webhook-id") == "" || r.Header.Get("webhook-id") != r.Header.Get("ce-id") ||
		!strings.HasPrefix(r.Header.Get("webhook-signature"), "v1,") || r.Header.Get("authorization") != "Bearer canary-token" {
		http.Error(w, "not an event", http.StatusInternalServerError)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	note := fmt.Sprint(e.After["note"])
	if b.refuses != "" && note == b.refuses {
		http.Error(w, "canary-answer", http.StatusUnprocessableEntity)
		return
	}
	if id := r.Header.Get("webhook-id"); !b.met[id] {
		b.met[id] = true
		row := fmt.Sprint(r.URL.Path, " ", e.Schema, ".", e.Table, " ", e.Key["id"])
		b.rows[row] = append(b.rows[row], e.Op+" "+note)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (b *inbox) row(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.rows[name], ", ")
}

// hook is the sink of a configuration that delivers to an inbox.
func hook(t *testing.T, name, from string, b *inbox) string {
	t.Helper()
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	t.Setenv("HOOK_TOKEN", "canary-token")
	t.Setenv("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	return fmt.Sprintf("  - name: %s\n    from: %s\n    webhook:\n      url: %s/changes/{table}/{key.id}\n      headers: { authorization: \"Bearer ${env:HOOK_TOKEN}\" }\n      secrets: [\"${env:HOOK_SECRET}\"]\n      allow: [127.0.0.1/32]\n",
		name, from, server.URL)
}

// `tailrace run` with a capture and a webhook: every change of each row, in its order, over
// a stop, a kill, and a topic that comes to be while it runs.
func TestRunWithWebhook(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	source := pg.CreateDatabase(t)
	exec := func(sql ...string) {
		t.Helper()
		if err := pg.Exec(t.Context(), source, sql...); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE orders (id bigint PRIMARY KEY, note text)", "INSERT INTO orders VALUES (1, 'before')", "CREATE TABLE items (id bigint PRIMARY KEY, note text)")
	name, b := testenv.Unique("hook"), &inbox{met: map[string]bool{}, rows: map[string][]string{}}
	in := settings{name: name, broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(source), more: "sinks:\n" + hook(t, name, name, b)}.configure(t)
	first := in.start(t)
	first.capturing()
	first.filled()
	exec("UPDATE orders SET note = 'a' WHERE id = 1", "UPDATE orders SET note = 'b' WHERE id = 1", "INSERT INTO orders VALUES (2, 'x')", "DELETE FROM orders WHERE id = 2")
	arrives := func(p *process, row, want string) {
		t.Helper()
		p.until(row+": "+want, func() bool { return b.row(row) == want })
	}
	arrives(first, "/changes/orders/1 public.orders 1", "r before, u a, u b")
	arrives(first, "/changes/orders/2 public.orders 2", "c x, d <nil>")
	checkSink(t, first, name)
	first.stop(syscall.SIGTERM, 0)

	exec("UPDATE orders SET note = 'while stopped' WHERE id = 1")
	second := in.start(t)
	second.ready()
	exec("INSERT INTO items VALUES (7, 'new')")
	arrives(second, "/changes/orders/1 public.orders 1", "r before, u a, u b, u while stopped")
	arrives(second, "/changes/items/7 public.items 7", "c new")
	second.kill()

	exec("UPDATE orders SET note = 'after the kill' WHERE id = 1")
	third := in.start(t)
	arrives(third, "/changes/orders/1 public.orders 1", "r before, u a, u b, u while stopped, u after the kill")
	third.stop(syscall.SIGTERM, 0)
	for _, p := range []*process{first, second, third} {
		if strings.Contains(p.log.String(), "canary") || strings.Contains(p.log.String(), "whsec_") {
			t.Errorf("a secret is in the log:\n%s", p.log.String())
		}
	}
	dropSlot(t, pg, source, settings{name: name}.slot())
}

// kill ends the process without a chance to do anything.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
}

// ledger is an application that notes the numbers that each row had, in the order in which
// it was told of them for the first time.
type ledger struct {
	mu   sync.Mutex
	met  map[string]bool
	rows map[int][]int
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var e struct{ After struct{ ID, N int } }
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		http.Error(w, "not an event", http.StatusInternalServerError)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if id := r.Header.Get("webhook-id"); !l.met[id] {
		l.met[id] = true
		l.rows[e.After.ID] = append(l.rows[e.After.ID], e.After.N)
	}
}

// last is the last number of each row, and whether all that were before came in order.
func (l *ledger) last() (numbers string, inOrder bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for id := range len(l.rows) {
		for i, n := range l.rows[id] {
			if n != i {
				return fmt.Sprintf("row %d: %v", id, l.rows[id]), false
			}
		}
		out = append(out, fmt.Sprint(len(l.rows[id])-1))
	}
	return strings.Join(out, " "), true
}

// The process is killed with everything in it, capture, broker and sink: each row's numbers
// come one after the other, none is left out.
func TestWebhookOverKills(t *testing.T) {
	const kills, rows = 15, 10
	pg := testenv.SharedPostgres(t)
	source := pg.CreateDatabase(t)
	if err := pg.Exec(t.Context(), source, "CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)",
		fmt.Sprintf("INSERT INTO counters SELECT i, 0 FROM generate_series(0, %d) i", rows-1)); err != nil {
		t.Fatal(err)
	}
	name, l := testenv.Unique("hook"), &ledger{met: map[string]bool{}, rows: map[int][]int{}}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	in := settings{name: name, broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(source),
		more: fmt.Sprintf("sinks:\n  - { name: %s, from: %s, webhook: { url: %q, allow: [127.0.0.1/32] } }\n", name, name, server.URL)}.configure(t)
	arrived := func() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.met) }
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	p := in.start(t)
	p.until("through with the rows that are there", func() bool { return arrived() == rows })
	p.ready() // the snapshot is done, and will not begin anew
	p.kill()
	for range kills {
		p = in.start(t)
		until := arrived() + 1 + rng.IntN(100)
		p.until("delivering", func() bool {
			if err := pg.Exec(t.Context(), source, fmt.Sprintf("UPDATE counters SET n = n + 1 WHERE id %% 3 = %d", rng.IntN(3))); err != nil {
				t.Fatal(err)
			}
			return arrived() >= until
		})
		p.kill()
	}
	p = in.start(t)
	p.ready()
	want := query(t, pg, source, "SELECT string_agg(n::text, ' ' ORDER BY id) FROM counters")
	p.until("equal", func() bool {
		got, inOrder := l.last()
		return got == want || !inOrder
	})
	p.stop(syscall.SIGTERM, 0)
	if got, inOrder := l.last(); got != want || !inOrder {
		t.Errorf("got %s, want %s", got, want)
	}
	dropSlot(t, pg, source, settings{name: name}.slot())
}

// A change that the target refuses stops the sink, with the change and what to do; the
// answer's text is not shown.
func TestWebhookRefuses(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	source := pg.CreateDatabase(t)
	if err := pg.Exec(t.Context(), source, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)"); err != nil {
		t.Fatal(err)
	}
	name, b := testenv.Unique("hook"), &inbox{met: map[string]bool{}, rows: map[string][]string{}, refuses: "poison"}
	in := settings{name: name, broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(source), more: "sinks:\n" + hook(t, name, name, b)}.configure(t)
	p := in.start(t)
	p.capturing()
	if err := pg.Exec(t.Context(), source, "INSERT INTO orders VALUES (1, 'poison')"); err != nil {
		t.Fatal(err)
	}
	p.until("stopped", func() bool { return p.sinkIs("stopped") })
	_, body := p.get("/status")
	if !strings.Contains(body, name+".public.orders/") || !strings.Contains(body, "422 Unprocessable Entity") || strings.Contains(body, "canary") {
		t.Errorf("the status is %s", body)
	}
	p.stop(syscall.SIGTERM, 1)
	if strings.Contains(p.log.String(), "canary") {
		t.Errorf("the log shows what the target said:\n%s", p.log.String())
	}
	dropSlot(t, pg, source, settings{name: name}.slot())
}

// The sink may run in a process of its own.
func TestWebhookInItsOwnProcess(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	source := pg.CreateDatabase(t)
	if err := pg.Exec(t.Context(), source, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)", "INSERT INTO orders VALUES (1, 'a')"); err != nil {
		t.Fatal(err)
	}
	name, address, broker := testenv.Unique("hook"), freeAddress(t), freeAddress(t)
	capture := settings{name: name, url: pg.AdminURL(source), registry: fmt.Sprintf("{ serve: %q, topic: %s }", address, testenv.Unique("schemas")),
		broker: fmt.Sprintf("{ embedded: { dir: %q, listen: %q, min_free: 1 } }", filepath.Join(t.TempDir(), "data"), broker)}.configure(t).start(t)
	capture.ready()
	b := &inbox{met: map[string]bool{}, rows: map[string][]string{}}
	i := &instance{file: filepath.Join(t.TempDir(), "sink.yaml"), http: freeAddress(t)}
	text := fmt.Sprintf("broker: { kafka: { brokers: [%q] } }\nregistry: { url: \"http://%s\" }\nhttp: { listen: %s }\nsinks:\n%s", broker, address, i.http, hook(t, name, name, b))
	if err := os.WriteFile(i.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := i.start(t)
	p.until("delivering", func() bool { return b.row("/changes/orders/1 public.orders 1") == "r a" })
	p.stop(syscall.SIGTERM, 0)
	capture.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, source, settings{name: name}.slot())
}
