package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/deploy/testenv"
)

const (
	loadRows = 200_000
	// transactionBound is how old a transaction of the capture's may get at the source: a
	// chunk is meant to take a quarter of a second, and this machine has others' work too.
	transactionBound = 2 * time.Second
)

// backload is the backfill of two tables while writers are at them.
type backload struct {
	t              *testing.T
	source, target *testenv.Postgres
	in             *instance
	targetURL      string
	name           string
	writers        sync.WaitGroup
}

func newBackload(t *testing.T, broker string) *backload {
	t.Helper()
	b := &backload{t: t, source: testenv.NewPostgres(t, testenv.PGOptions{}), target: testenv.SharedPostgres(t), name: testenv.Unique("load")}
	for _, table := range []string{"orders", "items"} {
		sql(t, b.source, "postgres", "CREATE TABLE "+table+" (id bigint PRIMARY KEY, v bigint NOT NULL, note text)",
			fmt.Sprintf("INSERT INTO %s SELECT i, 0, md5(i::text) FROM generate_series(1, %d) i", table, loadRows))
	}
	b.targetURL = b.target.AdminURL(b.target.CreateDatabase(t))
	b.in = settings{name: b.name, broker: broker, registry: ownRegistry(t), url: b.source.AdminURL("postgres"),
		more: fmt.Sprintf("    backfill: { readers: 2, rate: %d }\n", loadRows/8) + sinkTo(t, b.name, b.targetURL)}.configure(t)
	return b
}

// write runs statements that change makes, one connection for each writer, until ctx ends.
func (b *backload) write(ctx context.Context, writers int, change func(r *rand.Rand) string) {
	for n := range writers {
		conn := b.source.Connect(b.t, "postgres")
		b.writers.Go(func() {
			r := rand.New(rand.NewPCG(5, uint64(n)))
			for ctx.Err() == nil {
				time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond) // the pace of the load: what a broker beside it can take
				if _, err := conn.Exec(context.WithoutCancel(ctx), change(r)); err != nil {
					b.t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
}

// anyKey changes rows all over the table: at the end most were changed once, if at all.
func anyKey(r *rand.Rand) string {
	id := r.IntN(loadRows) + 1
	switch r.IntN(10) {
	case 0:
		return fmt.Sprintf("DELETE FROM orders WHERE id = %d", id)
	case 1:
		return fmt.Sprintf("UPDATE orders SET id = -id WHERE id = %d AND NOT EXISTS (SELECT FROM orders WHERE id = -%d)", id, id)
	case 2:
		return fmt.Sprintf("INSERT INTO orders VALUES (%d, 1, 'again') ON CONFLICT (id) DO UPDATE SET v = orders.v + 1", id)
	}
	return fmt.Sprintf("UPDATE orders SET v = v + 1 WHERE id = %d", id)
}

// hotKey changes few rows, in the tables' first, middle and last parts and beyond.
func hotKey(r *rand.Rand) string {
	id := r.IntN(4)*loadRows/3 + r.IntN(5) + 1
	return fmt.Sprintf("INSERT INTO items VALUES (%d, 1, 'hot') ON CONFLICT (id) DO UPDATE SET v = items.v + 1", id)
}

// long leaves a transaction open for a while after its changes.
func long(r *rand.Rand) string {
	return fmt.Sprintf("BEGIN; UPDATE orders SET v = v + 1 WHERE id = %d; SELECT pg_sleep(0.7); COMMIT", loadRows+r.IntN(9)+1)
}

// sampled is what somebody who looks at the source every 20 ms has seen.
type sampled struct {
	samples  int
	blocked  []string      // statements that waited for the capture
	truncate time.Duration // the longest that a TRUNCATE waited for it
	oldest   time.Duration // transaction of the capture's
}

const sampleSQL = `SELECT
	coalesce((SELECT max(clock_timestamp() - xact_start) FROM pg_stat_activity WHERE application_name LIKE 'tailrace%'), '0'),
	coalesce((SELECT max(clock_timestamp() - query_start) FROM blocked WHERE query LIKE 'TRUNCATE%'), '0'),
	coalesce((SELECT array_agg(query) FROM blocked WHERE query NOT LIKE 'TRUNCATE%'), '{}')`

// sample looks until ctx ends.
func (b *backload) sample(ctx context.Context, s *sampled) {
	conn := b.source.Connect(b.t, "postgres")
	b.writers.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var age, truncate time.Duration
			var blocked []string
			err := conn.QueryRow(context.WithoutCancel(ctx), `WITH blocked AS (SELECT w.query, w.query_start FROM pg_stat_activity w
				WHERE w.wait_event_type = 'Lock' AND EXISTS (SELECT FROM pg_stat_activity h WHERE h.pid = ANY (pg_blocking_pids(w.pid)) AND h.application_name LIKE 'tailrace%')) `+sampleSQL).Scan(&age, &truncate, &blocked)
			if err != nil {
				b.t.Errorf("sample: %v", err)
				return
			}
			s.samples++
			s.oldest, s.truncate, s.blocked = max(s.oldest, age), max(s.truncate, truncate), append(s.blocked, blocked...)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// differs says how the target is not as the source, once the writers have stopped.
func (b *backload) differs() string {
	for _, table := range []string{"orders", "items"} {
		sum := "SELECT count(*) || ' ' || coalesce(md5(string_agg(r::text, E'\\n' ORDER BY id)), '') FROM " + table + " r"
		want := query(b.t, b.source, "postgres", sum)
		if got := b.targetText(sum); got != want {
			return fmt.Sprintf("%s: got %s, want %s", table, got, want)
		}
	}
	return ""
}

// targetText is the one text of a query at the target, or why there is none.
func (b *backload) targetText(sql string) (text string) {
	conn, err := pgx.Connect(b.t.Context(), b.targetURL)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close(context.WithoutCancel(b.t.Context())) }()
	if err := conn.QueryRow(b.t.Context(), sql).Scan(&text); err != nil {
		return err.Error()
	}
	return text
}

// run has the tables read under load, with a time in which commits are in the log and not
// visible, and returns when all backfills are done and all is quiet, with the process at work.
func (b *backload) run(s *sampled) *process {
	b.t.Helper()
	p := b.in.start(b.t)
	p.capturing()
	ctx, stop := context.WithCancel(b.t.Context())
	defer func() { stop(); b.writers.Wait() }()
	b.sample(ctx, s)
	b.write(ctx, 3, anyKey)
	b.write(ctx, 1, hotKey)
	b.write(ctx, 1, long)
	p.until("reading", func() bool { return p.read() > loadRows/10 })
	sql(b.t, b.source, "postgres", "TRUNCATE items", "INSERT INTO items SELECT i, 5, 'new' FROM generate_series(1, 1000) i ON CONFLICT DO NOTHING")
	sql(b.t, b.source, "postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
	p.until("waiting for the standby", func() bool {
		return query(b.t, b.source, "postgres", "SELECT (count(*) >= 4)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "true"
	})
	// Commits that are in the log and that nobody sees, while chunks are read.
	deadline := time.Now().Add(3 * time.Second)
	p.until("past some seconds of that", func() bool { return time.Now().After(deadline) })
	sql(b.t, b.source, "postgres", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
	p.filled()
	return p
}

// end waits until the sink, which applies whole transactions in their order, has come to the
// end: a row of its own tells.
func (b *backload) end(p *process) {
	b.t.Helper()
	sql(b.t, b.source, "postgres", "INSERT INTO orders VALUES (1000000000, 0, 'last')")
	p.until("at the end", func() bool {
		return b.targetText("SELECT count(*)::text FROM orders WHERE id = 1000000000") == "1"
	})
}

// Two tables are backfilled while writers are at them: nobody waits for the capture, no
// transaction of it is older than a chunk, and the target becomes as the source.
func TestBackfillUnderLoad(t *testing.T) {
	for name, broker := range map[string]func(*testing.T) string{"embedded": embeddedBroker, "kafka": kafkaBroker} {
		t.Run(name, func(t *testing.T) {
			b := newBackload(t, broker(t))
			var s sampled
			p := b.run(&s)
			b.end(p)
			if d := b.differs(); d != "" {
				t.Error(d)
			}
			t.Logf("%d samples, oldest transaction %v, TRUNCATE waited %v", s.samples, s.oldest, s.truncate)
			if s.samples < 50 || len(s.blocked) > 0 || s.oldest > transactionBound || s.truncate > transactionBound {
				t.Errorf("%d samples: waited for the capture: %q; its oldest transaction: %v; a TRUNCATE waited %v", s.samples, s.blocked, s.oldest, s.truncate)
			}
			p.stop(syscall.SIGTERM, 0)
		})
	}
}

// A capture that takes every commit for seen leaves old rows in the target, and the test
// above would see it.
func TestBackfillUnderLoadSeesMutant(t *testing.T) {
	b := newBackload(t, embeddedBroker(t))
	b.in.bin = filepath.Join(t.TempDir(), "tailrace")
	b.in.env = []string{"TAILRACE_MUTANT=seen-all"}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoint", "-o", b.in.bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := b.run(&sampled{})
	b.end(p)
	if d := b.differs(); d == "" {
		t.Error("the target is as the source, with the fault")
	} else {
		t.Log(d)
	}
}

// captureStatus is what the process says of its capture; ok: it says something.
func (p *process) captureStatus() (s httpapi.Status, ok bool) {
	_, body := p.get("/status")
	return s, json.Unmarshal([]byte(body), &s) == nil && len(s.Captures) == 1
}

// read is how many rows were read.
func (p *process) read() uint64 {
	s, ok := p.captureStatus()
	if !ok {
		return 0
	}
	return uint64(s.Captures[0].Events["read"])
}
