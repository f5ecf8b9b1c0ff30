package postgres

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

func TestParseForks(t *testing.T) {
	forks, err := parseForks("# comment\n\n1\t0/3000060\tno recovery target specified\n2\t1/A\tbefore 2000-01-01 00:00:00+00\n")
	want := []capture.Fork{{Timeline: 1, At: capture.Position{Offset: 0x3000060}}, {Timeline: 2, At: capture.Position{Offset: 1<<32 | 10}}}
	if err != nil || !slices.Equal(forks, want) {
		t.Errorf("got %v, %v", forks, err)
	}
	for _, bad := range []string{"1\n", "x\t0/1\t\n", "1\tx\t\n"} {
		if _, err := parseForks(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A server that was promoted says where its timeline begins.
func TestLiveTimeline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	server := testenv.NewPostgres(t, testenv.PGOptions{})
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)")
	src, err := New(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	before, err := src.Inspect(ctx)
	if err != nil || before.Timeline != 1 || before.Forks != nil {
		t.Fatalf("got %+v, %v", before, err)
	}
	if err := server.Stop(ctx, "fast"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(server.Dir, "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := server.Exec(ctx, l.db, "SELECT pg_promote()"); err != nil {
		t.Fatal(err)
	}
	again, err := New(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	after, err := again.Inspect(ctx)
	if err != nil || after.Timeline != 2 || after.Identity != before.Identity || len(after.Forks) != 1 {
		t.Fatalf("got %+v, %v", after, err)
	}
	if at := after.Forks[0].At; after.Forks[0].Timeline != 1 || at.Compare(before.Highest) < 0 || at.Compare(after.Highest) > 0 {
		t.Errorf("left timeline %d at %d: between %d and %d?", after.Forks[0].Timeline, at.Offset, before.Highest.Offset, after.Highest.Offset)
	}
}
