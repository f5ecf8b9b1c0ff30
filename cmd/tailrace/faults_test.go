package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// The faults of the world around a capture, on both brokers: after each of them the topic
// holds every acknowledged change once.

// scene is a capture of a database of its own, with a writer.
type scene struct {
	t  *testing.T
	pg *testenv.Postgres
	settings
	*process

	mu    sync.Mutex
	acked []int64 // ids whose insert was acknowledged
	next  int64
}

func forEachBroker(t *testing.T, opts testenv.PGOptions, test func(t *testing.T, s *scene)) {
	for name, broker := range map[string]func(*testing.T) string{"embedded": embeddedBroker, "kafka": kafkaBroker} {
		t.Run(name, func(t *testing.T) { test(t, newScene(t, opts, broker(t))) })
	}
}

func newScene(t *testing.T, opts testenv.PGOptions, broker string) *scene {
	t.Helper()
	s := &scene{t: t, pg: testenv.NewPostgres(t, opts)}
	if err := s.pg.Exec(t.Context(), "postgres", "CREATE TABLE orders (id bigint PRIMARY KEY, note text)"); err != nil {
		t.Fatal(err)
	}
	s.settings = settings{name: testenv.Unique("fault"), broker: broker, registry: ownRegistry(t), url: s.pg.AdminURL("postgres"),
		more: "    snapshot: never\n"} // a fault would have it begin anew, with a TRUNCATE
	in := s.configure(t)
	s.process = in.start(t)
	s.ready()
	return s
}

// write inserts, updates and deletes until ctx ends, over as many connections as it takes.
// Whatever was acknowledged is in acked.
func (s *scene) write(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := pgx.Connect(ctx, s.url)
		if err != nil {
			continue // the server is down
		}
		for ctx.Err() == nil {
			s.next++
			id := s.next
			tag, err := conn.Exec(ctx, "INSERT INTO orders VALUES ($1, 'new')", id)
			if err != nil || tag.RowsAffected() != 1 {
				break
			}
			s.mu.Lock()
			s.acked = append(s.acked, id)
			s.mu.Unlock()
		}
		_ = conn.Close(context.WithoutCancel(ctx))
	}
}

// load starts the writer and returns what stops it and waits for it.
func (s *scene) load() (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.write(ctx) })
	return func() { cancel(); wg.Wait() }
}

func (s *scene) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acked)
}

// more waits until the writer has done n more inserts.
func (s *scene) more(n int) {
	s.t.Helper()
	from := s.count()
	s.until(fmt.Sprintf("writing %d more", n), func() bool { return s.count() >= from+n })
}

// sql runs statements as the superuser.
func (s *scene) sql(statements ...string) {
	s.t.Helper()
	if err := s.pg.Exec(s.t.Context(), "postgres", statements...); err != nil {
		s.t.Fatal(err)
	}
}

// one asks for a single value as text.
func (s *scene) one(query string) (value string) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(s.t.Context())
	if err := conn.QueryRow(s.t.Context(), query).Scan(&value); err != nil {
		s.t.Fatal(err)
	}
	return value
}

// check ends the capture and compares the topic with what was acknowledged: each insert
// once; one that was not acknowledged may be there, once. A read sees each partition at
// another moment, and a commit in each at another, so that it is repeated until nothing is
// missing; what is lost never comes.
func (s *scene) check() {
	s.t.Helper()
	s.sql("INSERT INTO orders VALUES (0, 'barrier')")
	topic := s.name + ".public.orders"
	seen := make(map[int64]int)
	missing := func() (ids []int64) {
		for _, id := range append([]int64{0}, s.acked...) {
			if seen[id] == 0 {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for deadline := time.Now().Add(patience); ; {
		clear(seen)
		for _, r := range rows(s.t, s.tail(s.t, topic, 1<<30, "--to-end", "--from", "beginning")) {
			seen[r.id]++
		}
		if lost := missing(); len(lost) == 0 {
			break
		} else if time.Now().After(deadline) {
			s.t.Fatalf("acknowledged and lost: %v", lost)
		}
	}
	for id, n := range seen {
		if n != 1 {
			s.t.Errorf("row %d is there %d times", id, n)
		}
	}
	if len(s.acked) == 0 {
		s.t.Error("nothing was written")
	}
	s.stop(syscall.SIGTERM, 0)
}

// fastStop stops the server as its operator would, and says how long that took.
func (s *scene) fastStop() time.Duration {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	began := time.Now()
	if err := s.pg.Stop(ctx, "fast"); err != nil {
		s.t.Fatal(err)
	}
	return time.Since(began)
}

// A fast shutdown of the source waits until the capture has confirmed everything. It must
// not wait for long, and the capture goes on when the server is back.
func TestFastShutdown(t *testing.T) {
	const limit = 5 * time.Second
	forEachBroker(t, testenv.PGOptions{}, func(t *testing.T, s *scene) {
		s.sql("INSERT INTO orders VALUES (-1, 'first')")
		s.tail(t, s.name+".public.orders", 1)
		if took := s.fastStop(); took > limit {
			t.Errorf("idle: took %v", took)
		}
		s.until("waiting", func() bool { code, _ := s.get("/readyz"); return code == 503 })
		if err := s.pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.ready()

		stop := s.load()
		defer stop()
		s.more(300)
		if took := s.fastStop(); took > limit {
			t.Errorf("under load: took %v", took)
		}
		if err := s.pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.more(100)
		stop()
		s.ready()
		s.check()
	})
}

// The server ends the replication connection, again and again.
func TestWalsenderTerminated(t *testing.T) {
	t.Parallel()
	forEachBroker(t, testenv.PGOptions{}, func(t *testing.T, s *scene) {
		stop := s.load()
		defer stop()
		for range 5 {
			s.more(100)
			s.until("connected", func() bool { return s.one("SELECT count(*)::text FROM pg_stat_replication") == "1" })
			s.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
		}
		stop()
		s.check()
	})
}

// The server is killed and recovers.
func TestServerKilled(t *testing.T) {
	forEachBroker(t, testenv.PGOptions{Durable: true}, func(t *testing.T, s *scene) {
		stop := s.load()
		defer stop()
		s.more(100)
		if err := s.pg.Stop(t.Context(), "immediate"); err != nil {
			t.Fatal(err)
		}
		if err := s.pg.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.more(100)
		stop()
		s.check()
	})
}

// A synchronous standby is absent: commits are in the log, and decoded, while their
// clients still wait. Nothing of that is lost or seen twice.
func TestSynchronousStandbyAbsent(t *testing.T) {
	forEachBroker(t, testenv.PGOptions{}, func(t *testing.T, s *scene) {
		stop := s.load()
		defer stop()
		s.more(50)
		s.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
		if err := s.pg.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.until("with a commit that waits for the standby", func() bool {
			return s.one("SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != "0"
		})
		s.sql("SET synchronous_commit = local", "SELECT pg_terminate_backend(pid) FROM pg_stat_replication") // and again from a restart
		s.until("ready", func() bool { code, _ := s.get("/readyz"); return code == 200 })
		s.sql("ALTER SYSTEM RESET synchronous_standby_names")
		if err := s.pg.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.more(50)
		stop()
		s.check()
	})
}

// A database whose captured tables are idle keeps no log, however much else is written.
func TestIdleKeepsNoLog(t *testing.T) {
	forEachBroker(t, testenv.PGOptions{}, func(t *testing.T, s *scene) {
		s.sql("CREATE TABLE aside (id int PRIMARY KEY, note text)",
			"INSERT INTO aside SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i")
		written := s.one("SELECT pg_current_wal_insert_lsn()::text")
		s.until("confirmed past "+written, func() bool {
			return s.one(fmt.Sprintf("SELECT (confirmed_flush_lsn >= '%s')::text FROM pg_replication_slots", written)) == "true"
		})
		s.sql("INSERT INTO orders VALUES (1, 'still there')")
		if got := rows(t, s.tail(t, s.name+".public.orders", 1)); got[0] != (row{"c", 1, "still there"}) {
			t.Errorf("got %v", got)
		}
	})
}

// Apache Kafka goes away and comes back.
func TestBrokerDownAndBack(t *testing.T) {
	t.Parallel()
	k := testenv.NewKafka(t, testenv.KafkaOptions{Settings: testenv.QuickRestart()})
	s := newScene(t, testenv.PGOptions{}, fmt.Sprintf("{ kafka: { brokers: [%q] } }", k.Addr()))
	stop := s.load()
	defer stop()
	for name, down := range map[string]func() error{
		"stopped": func() error { return k.Stop(t.Context()) },
		"killed":  k.Kill,
	} {
		s.more(100)
		if err := down(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.more(100)
		if err := k.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.more(100)
	}
	stop()
	s.check()
	if strings.Contains(s.log.String(), " stopped\",\"capture\"") {
		t.Error("the capture gave up")
	}
}
