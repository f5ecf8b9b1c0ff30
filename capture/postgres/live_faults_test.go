package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// The run resumes after what was committed, whatever ended it.
func TestLiveResume(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY)")
	l.start()
	l.exec("INSERT INTO t VALUES (1)")
	l.until("c public.t", `{"id":1}`)
	l.wait("commit", func() bool { return !l.rec.open })
	l.stop()
	l.exec("INSERT INTO t VALUES (2)")
	l.start()
	l.until("c public.t", `{"id":2}`)
	l.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '" + l.cfg.Slot + "'")
	err := l.wantEnd()
	if err == nil || capture.IsFatal(err) {
		t.Fatalf("a terminated session is no reason to stop for good: %v", err)
	}
	l.exec("INSERT INTO t VALUES (3)")
	l.start()
	l.until("c public.t", `{"id":3}`)
	if n := len(l.changes()); n != 3 {
		t.Errorf("%d changes", n)
	}
}

// Nothing of a source runs on after Close.
func TestLiveLeavesNothing(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY)")
	before := goleak.IgnoreCurrent()
	for i := range 3 {
		l.start()
		l.exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
		l.until("c public.t", fmt.Sprintf(`{"id":%d}`, i))
		l.stop()
	}
	goleak.VerifyNone(t, before)
}

// A row of many megabytes comes through, and its memory is given back.
func TestLiveLargeRow(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY, v text, b bytea)")
	l.start()
	l.exec("INSERT INTO t VALUES (1, repeat('x', 20000000), decode(repeat('ab', 5000000), 'hex'))", "INSERT INTO t VALUES (2, '', '')")
	line := l.until("c public.t", `"id":1`)
	if len(line) < 30_000_000 {
		t.Errorf("the row is of %d bytes", len(line))
	}
	l.until("c public.t", `"id":2`)
}

// A fast shutdown waits until the receiver has confirmed everything that was sent.
func TestLiveFastShutdown(t *testing.T) {
	for _, version := range []int{14, 15, 18} {
		for _, load := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d load=%t", version, load), func(t *testing.T) {
				server := testenv.NewPostgres(t, testenv.PGOptions{Version: version})
				l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)")
				l.start()
				l.exec("INSERT INTO t VALUES (1)")
				l.until("c public.t", `{"id":1}`)
				loaded := make(chan int, 1)
				if load {
					go func() { loaded <- insertUntilShutdown(server, l.db) }()
					l.until("c public.t", `{"id":100}`)
				}
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if err := server.Stop(ctx, "fast"); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(begin); d > 5*time.Second {
					t.Errorf("the shutdown took %s", d)
				}
				if err := l.wantEnd(); err == nil || capture.IsFatal(err) {
					t.Errorf("the run ended with %v", err)
				}
				if err := server.Start(ctx); err != nil {
					t.Fatal(err)
				}
				l.sql = server.Connect(t, l.db)
				last := 1
				if load {
					last = <-loaded
				}
				l.exec("INSERT INTO t VALUES (1000000)")
				l.start()
				l.until("c public.t", `{"id":1000000}`)
				if n := len(l.changes()); n < last+1 || n > last+2 { // one more may be committed unseen
					t.Errorf("%d changes, %d rows were acknowledged", n, last+1)
				}
			})
		}
	}
}

// insertUntilShutdown inserts 2, 3, … until that fails, and returns the last one.
func insertUntilShutdown(server *testenv.Postgres, db string) int {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, server.AdminURL(db))
	if err != nil {
		return 0
	}
	defer conn.Close(ctx)
	for i := 2; ; i++ {
		if _, err := conn.Exec(ctx, "INSERT INTO t VALUES ($1)", i); err != nil {
			return i - 1
		}
	}
}

// The confirmed position follows the log of a database in which nothing of ours happens.
func TestLiveIdleDatabaseKeepsNoLog(t *testing.T) {
	for _, version := range []int{14, 15} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			server := testenv.NewPostgres(t, testenv.PGOptions{Version: version})
			l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int, v text)")
			l.cfg.Tables = []string{"public.t"}
			l.start()
			l.exec("INSERT INTO other SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i")
			retained := func() (int64, error) {
				var n int64
				err := l.sql.QueryRow(t.Context(), "SELECT pg_current_wal_flush_lsn() - confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1", l.cfg.Slot).Scan(&n)
				return n, err
			}
			if err := l.eventually(func() (bool, error) {
				n, err := retained()
				return err == nil && n < 1000, errors.Join(err, fmt.Errorf("%d bytes are kept", n))
			}); err != nil {
				t.Error(err)
			}
			if len(l.changes()) != 0 {
				t.Errorf("changes %q", l.changes())
			}
		})
	}
}

// What is not confirmed stays, however much is received.
func TestLiveUnconfirmedStays(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY)")
	l.rec.confirm = func(capture.Position) {}
	l.start()
	l.exec("INSERT INTO t VALUES (1)")
	l.until("c public.t")
	l.wait("idle ticks", func() bool { return l.rec.idles > 2 })
	l.stop()
	info, err := l.source.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Lowest.Compare(l.rec.pos) >= 0 {
		t.Errorf("the slot is at %d, the log was read up to %d", info.Lowest.Offset, l.rec.pos.Offset)
	}
	if err := l.source.Close(); err != nil {
		t.Error(err)
	}
	l.rec.pos = info.Lowest
	l.start()
	l.wait("the row again", func() bool {
		n := 0
		for _, line := range l.rec.lines {
			if strings.HasPrefix(line, "c public.t") {
				n++
			}
		}
		return n == 2
	})
}

// Close tells what became durable after the run.
func TestLiveConfirmAfterRun(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY)")
	l.rec.confirm = func(capture.Position) {}
	l.start()
	l.exec("INSERT INTO t VALUES (1)")
	l.until("commit")
	l.cancel()
	if err := <-l.ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	l.source.Confirm(l.rec.pos)
	l.close()
	if err := l.eventually(func() (bool, error) {
		var ok bool
		err := l.sql.QueryRow(t.Context(), "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1",
			l.cfg.Slot, lsnText(l.rec.pos.Offset)).Scan(&ok)
		return ok, err
	}); err != nil {
		t.Error(err)
	}
}

// A reader that is held up for longer than wal_sender_timeout keeps its session.
func TestLiveHeldUp(t *testing.T) {
	server := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"wal_sender_timeout": "1s"}})
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	held := make(chan struct{})
	l.rec.onChange = func() { <-held }
	l.start()
	l.exec("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
	time.AfterFunc(3*time.Second, func() { close(held) })
	l.until("commit")
	if n := len(l.changes()); n != 20000 {
		t.Errorf("%d changes", n)
	}
}

// A predecessor's session holds the slot for a while.
func TestLiveSlotInUse(t *testing.T) {
	server := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"wal_sender_timeout": "1s"}})
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)")
	l.start()
	l.wait("idle", func() bool { return l.rec.idles > 0 })
	other, err := New(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	begin := time.Now()
	_, err = other.Inspect(t.Context())
	wantStop(t, err, "is in use by process", "pg_terminate_backend")
	if capture.CodeOf(err) != capture.CodeEnvironment || !strings.Contains(err.Error(), "tailrace "+l.cfg.Name) {
		t.Errorf("code %d: %v", capture.CodeOf(err), err)
	}
	if d := time.Since(begin); d < 4*time.Second {
		t.Errorf("gave up after %s", d)
	}
	// It becomes free while somebody waits.
	waited := make(chan error, 1)
	go func() {
		_, err := other.Inspect(t.Context())
		waited <- err
	}()
	l.stop()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

func TestLiveSlotGone(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY)")
	l.start()
	l.exec("INSERT INTO t VALUES (1)")
	l.until("commit")
	l.stop()
	l.dropSlot()
	src, err := New(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	info, err := src.Inspect(t.Context())
	if err != nil || info.Ready {
		t.Errorf("ready %t, %v", info.Ready, err)
	}
	err = src.Run(t.Context(), l.rec.pos, l.rec)
	wantStop(t, err, "does not exist", "new epoch")
}

func TestLivePublicationGone(t *testing.T) {
	for _, version := range []int{15, 18} { // 18 only warns
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			server := testenv.NewPostgres(t, testenv.PGOptions{Version: version})
			l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)")
			l.start()
			l.wait("idle", func() bool { return l.rec.idles > 0 })
			l.exec("DROP PUBLICATION "+l.cfg.Publication, "INSERT INTO t VALUES (1)")
			end := l.wantEnd()
			wantStop(t, end, "does not exist", "cannot be read")
			if ways := capture.WaysOf(end); len(ways) == 0 || ways[0].Flag != capture.WayEpoch {
				t.Errorf("%v leads on by %v", end, ways)
			}
			src, err := New(l.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			info, err := src.Inspect(t.Context())
			if err != nil || info.Ready {
				t.Errorf("ready %t, %v", info.Ready, err)
			}
			wantStop(t, info.Lost, "but publication", "cannot be read")
		})
	}
}
