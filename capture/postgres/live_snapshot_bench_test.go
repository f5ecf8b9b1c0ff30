package postgres

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// BenchmarkLiveSnapshot reads a table of 500,000 rows, and has COPY send the same to
// nobody beside it.
func BenchmarkLiveSnapshot(b *testing.B) {
	const rows = 500_000
	server := testenv.NewPostgres(b, testenv.PGOptions{})
	db := server.CreateDatabase(b)
	conn := server.Connect(b, db)
	for _, statement := range []string{ordersSQL, "VACUUM ANALYZE orders"} {
		if _, err := conn.Exec(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := conn.Exec(b.Context(), ordersRows, 1, rows); err != nil {
		b.Fatal(err)
	}
	var wall, theirs time.Duration
	for b.Loop() {
		begun := time.Now()
		if _, err := conn.PgConn().CopyTo(b.Context(), io.Discard, "COPY orders TO STDOUT"); err != nil {
			b.Fatal(err)
		}
		theirs += time.Since(begun)
		wall += readOnce(b, Config{URL: server.AdminURL(db), Prefix: "srv", Slot: "bench", Publication: "bench",
			CreatePublication: true, Log: slog.New(slog.DiscardHandler)}, rows)
	}
	n := float64(b.N) * rows
	b.ReportMetric(n/wall.Seconds(), "rows/s")
	b.ReportMetric(n/theirs.Seconds(), "copy-rows/s")
	b.ReportMetric(wall.Seconds()/theirs.Seconds(), "wall-ratio")
}

// readOnce takes a snapshot of rows rows, and says how long reading it took.
func readOnce(b *testing.B, cfg Config, rows int) time.Duration {
	src, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	if _, _, err := src.Prepare(b.Context(), true); err != nil {
		b.Fatal(err)
	}
	out := &stopAt{appender: &appender{}, want: rows + 1, stop: context.CancelFunc(func() {})}
	begun := time.Now()
	if err := src.Snapshot(b.Context(), false, out); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begun)
	if out.changes != rows {
		b.Fatalf("%d rows of %d", out.changes, rows)
	}
	if err := src.Discard(b.Context()); err != nil {
		b.Fatal(err)
	}
	return took
}
