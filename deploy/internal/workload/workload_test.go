package workload

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/internal/judge"
	"github.com/tailrace/tailrace/deploy/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// The oracle itself is checked: what the writers have logged must be what the database's
// own decoder of the log (test_decoding) says, change by change.
func TestLogsAgreeWithTheDatabase(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	if err := pg.Exec(t.Context(), db, DDL()...); err != nil {
		t.Fatal(err)
	}
	conn := pg.Connect(t, db)
	if _, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot('oracle', 'test_decoding')"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Exec(context.Background(), "SELECT pg_drop_replication_slot('oracle')") })

	load := New(Config{URL: pg.AdminURL(db), Prefix: "x", Dir: t.TempDir(), Writers: 4, Rate: 1e6, Seed: 7})
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- load.Run(t.Context(), stop) }()
	deadline := time.After(time.Minute)
	for load.Changes() < 3000 {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("%d changes in a minute", load.Changes())
		case <-time.After(10 * time.Millisecond):
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	logged, err := load.Transactions()
	if err != nil {
		t.Fatal(err)
	}
	want, total, kinds := map[uint64][]string{}, 0, map[string]int{}
	for _, tx := range logged {
		kinds[string(tx.Outcome)]++
		for _, c := range tx.Changes {
			kinds[c.Op]++
			if tx.Outcome == judge.OK {
				total++
				want[tx.ID] = append(want[tx.ID], describe(c))
			}
		}
	}
	for _, kind := range []string{"ok", "failed", "insert", "update", "delete", "rekey"} {
		if kinds[kind] < 10 {
			t.Errorf("only %d of %s: the workload is too uniform", kinds[kind], kind)
		}
	}
	if int64(total) != load.Changes() {
		t.Errorf("%d changes in the logs, %d counted", total, load.Changes())
	}
	rows, err := conn.Query(t.Context(), "SELECT xid::text, data FROM pg_logical_slot_get_changes('oracle', NULL, NULL)")
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint64][]string{}
	for rows.Next() {
		var xid, data string
		if err := rows.Scan(&xid, &data); err != nil {
			t.Fatal(err)
		}
		id, err := strconv.ParseUint(xid, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if d := decoded(data); d != "" {
			got[id] = append(got[id], d)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for id, w := range want {
		if !slices.Equal(got[id], w) {
			t.Fatalf("transaction %d: the log says\n%q\nthe writer\n%q", id, got[id], w)
		}
		delete(got, id)
	}
	if len(got) > 0 {
		t.Fatalf("the log has transactions that no writer knows: %v", got)
	}
}

// describe says what of a change test_decoding shows, too.
func describe(c judge.Change) string {
	switch c.Op {
	case "delete":
		return c.Topic + " DELETE"
	case "rekey":
		return fmt.Sprintf("%s UPDATE %s", c.Topic, Body(c.Topic[len("x.public."):], c.NewKey, c.NewVer))
	case "update":
		return fmt.Sprintf("%s UPDATE %s", c.Topic, Body(c.Topic[len("x.public."):], c.Key, c.Ver))
	}
	return fmt.Sprintf("%s INSERT %s", c.Topic, Body(c.Topic[len("x.public."):], c.Key, c.Ver))
}

var change = regexp.MustCompile(`^table public\.(\w+): (INSERT|UPDATE|DELETE):.*?(?: ver\[bigint\]:\d+ body\[text\]:'([^']*)'(?: note.*)?)?$`)

// decoded is the same of a line of test_decoding; "" for BEGIN and COMMIT.
func decoded(line string) string {
	m := change.FindStringSubmatch(line)
	switch {
	case m == nil:
		return ""
	case m[2] == "DELETE":
		return "x.public." + m[1] + " DELETE"
	}
	return "x.public." + m[1] + " " + m[2] + " " + m[3]
}

func TestNoteIsLongAndDependsOnTheRow(t *testing.T) {
	a, b, c := Note("k", 1), Note("k", 2), Note("l", 1)
	if len(a) != NoteSize || a == b || a == c || a != Note("k", 1) {
		t.Errorf("%d bytes, versions differ: %v, keys differ: %v", len(a), a != b, a != c)
	}
}
