package main

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tailrace/tailrace/deploy/internal/workload"
	"github.com/tailrace/tailrace/deploy/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestTargetIsEqualAndNeverHalf(t *testing.T) {
	r := small(t, options{broker: "embedded", target: "postgres", kills: 10, changes: 3000, seed: rand.Uint64() >> 32, rate: 600})
	if !r.good() || r.Kills != 10 || !r.Equal || r.Polls < minPolls {
		t.Error("the run is not clean, see above")
	}
}

// A watcher that sees nothing would prove nothing.
func TestWatcherSeesHalves(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	w := target{conn: pg.Connect(t, db)}
	for _, step := range []struct {
		name, sql   string
		half, polls int // so far
	}{
		{"no tables", "SELECT", 0, 0},
		{"one table without rows", "CREATE TABLE hot (id int, writer int, wseq bigint, ver bigint)", 0, 0},
		{"rows in one table only", "INSERT INTO hot VALUES (1, 0, 1, 1)", 1, 1},
		{"the same in both", "CREATE TABLE " + workload.Mirror + " AS TABLE hot", 1, 2},
		{"another transaction's update", "UPDATE hot SET wseq = 2, ver = 2", 2, 3},
		{"the whole of it", "UPDATE " + workload.Mirror + " SET wseq = 2, ver = 2", 2, 4},
		{"a row too few", "DELETE FROM hot", 3, 5},
	} {
		if err := pg.Exec(t.Context(), db, step.sql); err != nil {
			t.Fatal(err)
		}
		if err := w.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.found.Half != step.half || w.found.Polls != step.polls {
			t.Errorf("%s: %d of %d looks, want %d of %d", step.name, w.found.Half, w.found.Polls, step.half, step.polls)
		}
	}
}

func TestChecksumsTellTablesApart(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	if err := pg.Exec(t.Context(), db, "CREATE TABLE a AS SELECT 1 AS x, 'y' AS y UNION ALL SELECT 2, NULL",
		"CREATE TABLE b AS TABLE a ORDER BY x DESC", "CREATE TABLE c AS SELECT * FROM a WHERE x = 1", "CREATE TABLE d AS SELECT x, coalesce(y, '') AS y FROM a"); err != nil {
		t.Fatal(err)
	}
	var sums []string
	for _, table := range []string{"a", "b", "c", "d", "e"} {
		sum, err := checksum(t.Context(), pg.AdminURL(db), table)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
	if sums[0] != sums[1] || sums[4] != "missing" || slices.Contains(sums[2:], sums[0]) {
		t.Errorf("%q", sums)
	}
}
