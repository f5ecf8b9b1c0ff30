package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
)

// rewrite changes the configuration and has the process read it again.
func (p *process) rewrite(old, now string) {
	p.t.Helper()
	text, err := os.ReadFile(p.file)
	if err != nil || !strings.Contains(string(text), old) {
		p.t.Fatalf("%v: %q is not in the configuration", err, old)
	}
	if err := os.WriteFile(p.file, []byte(strings.Replace(string(text), old, now, 1)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	send(p.t, p, syscall.SIGHUP)
}

// beats is a table that is written every 20 ms, and a reader of its topic.
type beats struct {
	mu      sync.Mutex
	written map[int64]time.Time // when the commit was acknowledged
	came    map[int64]time.Time // when the record was read
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// startBeats writes and reads until end is called.
func startBeats(t *testing.T, p *process, url, topic string) *beats {
	t.Helper()
	writing, stop := context.WithCancel(t.Context())
	b := &beats{written: map[int64]time.Time{}, came: map[int64]time.Time{}, stop: stop}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	broker, _ := p.addresses()
	client, err := stream.NewClient(stream.Config{Brokers: []string{broker}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); b.work.Wait(); client.Close() })
	b.work.Go(func() {
		defer conn.Close(context.WithoutCancel(writing))
		b.write(writing, t, conn)
	})
	p.waitForTopic(t, topic)
	reading, enough := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	t.Cleanup(func() { enough(); readers.Wait() })
	info, err := client.Topic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for n := range info.Partitions {
		readers.Go(func() {
			r := client.NewReader(topic, n, 0, stream.FetchOptions{MaxBytes: 1 << 20, MaxWait: 50 * time.Millisecond})
			for reading.Err() == nil {
				if err := r.Read(reading, b.take); err != nil && reading.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return b
}

func (b *beats) write(ctx context.Context, t *testing.T, conn *pgx.Conn) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := int64(1); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := conn.Exec(context.WithoutCancel(ctx), "INSERT INTO beat VALUES ($1, 0)", n); err != nil {
			t.Error(err)
			return
		}
		b.mu.Lock()
		b.written[n] = time.Now()
		b.mu.Unlock()
	}
}

// take notes a record: its key is one long.
func (b *beats) take(r *stream.Record) error {
	if len(r.Key) < 6 {
		return nil
	}
	id, shift := uint64(0), 0
	for _, c := range r.Key[5:] {
		id |= uint64(c&0x7f) << shift
		shift += 7
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.came[int64(id>>1)] = time.Now()
	return nil
}

// end stops the writer, waits for the last record, and returns how many there were and the
// longest that one was under way.
func (b *beats) end(p *process) (n int, longest time.Duration) {
	p.t.Helper()
	b.stop()
	b.work.Wait()
	p.until("every beat read", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.came) == len(b.written)
	})
	for id, at := range b.written {
		longest = max(longest, b.came[id].Sub(at))
	}
	return len(b.written), longest
}

// Ten tables are added to a running capture, one after the other, by a reload of its
// configuration; the changes of the others do not stand still for it, and the rows of each
// are whole.
func TestTablesJoinByReload(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	const tables = 10
	sql(t, pg, db, "CREATE TABLE beat (id bigint PRIMARY KEY, v int)")
	for i := range tables {
		sql(t, pg, db, fmt.Sprintf("CREATE TABLE joins%d (id int PRIMARY KEY, v int); INSERT INTO joins%[1]d SELECT i, 0 FROM generate_series(1, 6000) i", i))
	}
	s := settings{name: testenv.Unique("join"), broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(db), postgres: `, tables: ["public.beat"]`}
	p := s.configure(t).start(t)
	p.ready()
	b := startBeats(t, p, s.url, s.name+".public.beat")
	began := time.Now()
	for i := range tables {
		name := fmt.Sprintf("joins%d", i)
		p.rewrite(`"public.beat"`, fmt.Sprintf(`"public.beat", "public.%s"`, name))
		p.until(name+" read", func() bool {
			sql(t, pg, db, fmt.Sprintf("UPDATE %s SET v = v + 1 WHERE id %% 100 = 0", name))
			for _, b := range p.ask(t, 0, "list").Result.Backfills {
				if b.Name == name && b.State == capture.BackfillDone {
					return true
				}
			}
			return false
		})
	}
	took := time.Since(began)
	n, longest := b.end(p)
	t.Logf("%d tables of 6000 rows joined in %s; %d beats meanwhile, the longest from its commit to a reader %s", tables, took.Round(time.Millisecond), n, longest)
	if longest > time.Second {
		t.Errorf("a beat came %s after its commit", longest)
	}
	for i := range tables {
		name := fmt.Sprintf("joins%d", i)
		p.until("all of "+name, func() bool {
			return maps.Equal(fold(t, p.tail(t, s.name+".public."+name, 1<<30, "--to-end", "--from", "beginning")).rows, tableRows(t, s.url, name))
		})
	}
	if strings.Count(p.log.String(), `"msg":"capture runs"`) > 1 {
		t.Error("the capture was started again")
	}
	p.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}

// A file with mistakes changes nothing, and each is logged; other differences than tables
// are named; a table that leaves while its rows are read is said to have left.
func TestReload(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id int PRIMARY KEY, v int)", "CREATE TABLE big (id int PRIMARY KEY, v int)",
		"INSERT INTO big SELECT i, 0 FROM generate_series(1, 5000) i")
	s := settings{name: testenv.Unique("reload"), broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(db), postgres: `, tables: ["public.orders"]`,
		more: "    backfill: { rate: 200 }\n"}
	p := s.configure(t).start(t)
	p.ready()
	said := func(what string) {
		t.Helper()
		p.until("saying "+what, func() bool { return strings.Contains(p.log.String(), what) })
	}
	p.rewrite("rate: 200", "rate: fast, raet: 1")
	said(`"path":"captures[0].backfill.raet"`)
	said(`"path":"captures[0].backfill.rate"`)
	said("the configuration was not taken up: nothing has changed")
	p.rewrite("rate: fast, raet: 1", "rate: 300")
	said(`"path":"captures.` + s.name + `.backfill.rate"`)
	p.rewrite("rate: 300", "rate: 200")
	said("the configuration was read again: nothing has changed")

	p.rewrite(`"public.orders"`, `"public.orders", "public.big"`)
	var id string
	p.until("reading big", func() bool {
		for _, b := range p.ask(t, 0, "list").Result.Backfills {
			if b.Name == "big" && b.Read > 0 {
				id = b.ID
			}
		}
		return id != ""
	})
	p.rewrite(`, "public.big"`, "")
	if b := p.untilState(id, capture.BackfillFailed); !strings.Contains(b.Error, "has left the capture") || b.Hint == "" {
		t.Errorf("%q, %q", b.Error, b.Hint)
	}
	if a := p.ask(t, 2, "resume", id); a.Error == nil || !strings.Contains(a.Error.Message, "does not have table public.big") {
		t.Errorf("resumed without its table: %+v", a.Error)
	}
	sql(t, pg, db, "INSERT INTO orders VALUES (1, 1)")
	if r := p.tail(t, s.name+".public.orders", 1); len(r) != 1 {
		t.Errorf("%d records of orders", len(r))
	}
	if strings.Count(p.log.String(), `"msg":"capture runs"`) > 1 {
		t.Error("the capture was started again")
	}
	var status struct {
		Captures []struct{ Backfills []capture.Backfill }
	}
	if _, body := p.get("/status"); json.Unmarshal([]byte(body), &status) != nil || len(status.Captures) != 1 || len(status.Captures[0].Backfills) != 1 {
		t.Errorf("the status has %+v", status)
	}
	if _, body := p.get("/metrics"); !strings.Contains(body, `tailrace_backfill_state{backfill="`+id+`",capture="`+s.name+`",state="failed",table="public.big"} 1`) {
		t.Error("the metrics do not have it")
	}
	p.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}
