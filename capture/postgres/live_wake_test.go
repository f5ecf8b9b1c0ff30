package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// reachEnd reads a chunk and says how long it takes until an otherwise idle log is read up
// to its end, with somebody who waits for that.
func (l *live) reachEnd(cs *chunks, table string) time.Duration {
	l.t.Helper()
	r := cs.mustPlan(table)
	chunk := cs.mustRead(r)
	begun := time.Now()
	end := capture.Position{Offset: chunk.End.Offset}
	l.source.Wake(end)
	l.wait("the log to be read up to the chunk's end", func() bool { return l.rec.pos.Compare(end) >= 0 })
	return time.Since(begun)
}

// An idle log is read up to the end of a chunk soon: after commits of each kind, after what
// a SELECT has pruned, and after a switch of the log's segment. What does not wait for the
// disk is written out by the server's WAL writer within about its wal_writer_delay; but for
// what an open transaction has logged on a server on which nobody commits, which its
// background writer sees to every 15 s.
func TestLiveWake(t *testing.T) {
	server := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"wal_sender_timeout": "0"}}) // it says nothing by itself
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY, v text) WITH (fillfactor = 50)", "CREATE TABLE pad (v text)", "ALTER TABLE pad REPLICA IDENTITY FULL",
		"INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 200) i")
	l.cfg.StatusInterval = time.Hour
	l.start()
	l.exec("UPDATE t SET v = v WHERE id = 1")
	l.until("u public.t", `"id":1`)
	cs := newChunks(l)
	for _, test := range []struct {
		name   string
		before func()
	}{
		{"nothing", func() {}},
		{"a commit", func() { l.exec("UPDATE t SET v = 'a' WHERE id = 2") }},
		{"a commit that does not wait for the disk", func() {
			l.exec("SET synchronous_commit = off", "UPDATE t SET v = 'b' WHERE id = 3", "RESET synchronous_commit")
		}},
		{"another database's commit", func() {
			if err := server.Exec(t.Context(), "postgres", "CREATE TABLE IF NOT EXISTS o (i int)", "INSERT INTO o VALUES (1)"); err != nil {
				t.Fatal(err)
			}
		}},
		{"rows to be pruned", func() { l.exec("UPDATE t SET v = repeat('y', 190)", "UPDATE t SET v = repeat('z', 190)") }},
		{"a new segment", func() { l.exec("SELECT pg_switch_wal()") }},
		{"a transaction that was rolled back", func() { l.exec("BEGIN", "UPDATE t SET v = 'back' WHERE id = 9", "ROLLBACK") }},
	} {
		test.before()
		took := l.reachEnd(cs, "public.t")
		t.Logf("%-42s %s", test.name, took.Round(100*time.Microsecond))
	}
}

// Wherever the next record would begin, the end that is read is reached.
func TestLiveWakeAtPageStart(t *testing.T) {
	server := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"autovacuum": "off"}})
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)")
	l.start()
	l.exec("INSERT INTO t VALUES (1)")
	l.until("c public.t")
	cs := newChunks(l)
	starts := 0
	for i := 0; i < 400 && starts < 1; i++ {
		// A message that is not transactional ends where it is told to.
		var text string
		if err := l.sql.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()").Scan(&text); err != nil {
			t.Fatal(err)
		}
		at, err := pglogrepl.ParseLSN(text)
		if err != nil {
			t.Fatal(err)
		}
		const head = 24 + 2 + 24 + 8 // of a record, its data, and the message's with its prefix
		size := int(8192-uint64(at)%8192) - head - 16 + i%40
		if size < 256 {
			size += 8192 - 24
		}
		l.exec("SELECT pg_logical_emit_message(false, 'tailrac', '" + string(make64(size)) + "')")
		if err := l.sql.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()").Scan(&text); err != nil {
			t.Fatal(err)
		}
		if at, err = pglogrepl.ParseLSN(text); err != nil {
			t.Fatal(err)
		}
		if uint64(at)%8192 == shortPageHead {
			starts++
			t.Logf("message %d: the next record begins at %s", i, at)
			l.reachEnd(cs, "public.t")
		}
	}
	if starts == 0 {
		t.Error("no message ended with its page")
	}
}

func make64(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'x'
	}
	return b
}
