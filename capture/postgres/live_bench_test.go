package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// ordersSQL is a table like that of ordersBench, and rows for it.
const ordersSQL = `CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint NOT NULL, status text NOT NULL, sku varchar(20),
	amount numeric(12,2) NOT NULL, tax numeric(12,2), quantity int NOT NULL, created timestamptz NOT NULL, updated timestamptz,
	due date, paid boolean NOT NULL, ref uuid NOT NULL, detail jsonb)`

const ordersRows = `INSERT INTO orders SELECT i, i % 5000, 'shipped', 'SKU-' || i, i % 100000 / 7.0, i % 1000 / 3.0, i % 9, now(), now(),
	'2024-06-01', i % 2 = 0, gen_random_uuid(), jsonb_build_object('a', repeat('x', 190)) FROM generate_series($1::int, $2::int) i`

// stopAt ends the run when a number of changes has come.
type stopAt struct {
	*appender
	want int
	stop context.CancelFunc
}

func (s *stopAt) Table(ctx context.Context, v *capture.TableVersion) (*capture.Route, error) {
	t, err := v.Describe(ctx)
	return &capture.Route{Table: t, KeyID: 1, ValueID: 2}, err
}

func (s *stopAt) Commit(context.Context, capture.Position) error {
	if s.changes >= s.want {
		s.stop()
	}
	return nil
}

// BenchmarkLiveDrain reads a backlog of 200,000 inserts from a real server over TCP, and
// has pg_recvlogical read the same beside it.
func BenchmarkLiveDrain(b *testing.B) {
	for _, perTx := range []int{5, 1000, 200_000} {
		b.Run(fmt.Sprintf("rows-per-transaction=%d", perTx), func(b *testing.B) {
			server := testenv.NewPostgres(b, testenv.PGOptions{Settings: map[string]string{"wal_sender_timeout": "0"}})
			db := server.CreateDatabase(b)
			metrics := prometheus.NewRegistry()
			cfg := Config{URL: server.AdminURL(db), Prefix: "srv", Registerer: metrics, Slot: "drain", Publication: "drain", CreatePublication: true, Log: slog.New(slog.DiscardHandler)}
			conn := server.Connect(b, db)
			if _, err := conn.Exec(b.Context(), ordersSQL); err != nil {
				b.Fatal(err)
			}
			src, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer src.Close()
			start, _, err := src.Prepare(b.Context(), false)
			if err != nil {
				b.Fatal(err)
			}
			const rows = 200_000
			for i := 0; i < rows; i += perTx {
				if _, err := conn.Exec(b.Context(), ordersRows, i, i+perTx-1); err != nil {
					b.Fatal(err)
				}
			}
			var wall, cpu, theirs time.Duration
			for b.Loop() {
				for _, slot := range []string{"ours", "theirs"} { // each reader moves its own
					if _, err := conn.Exec(b.Context(), "SELECT pg_copy_logical_replication_slot('drain', $1)", slot); err != nil {
						b.Fatal(err)
					}
				}
				cfg.Slot = "ours"
				w, c := drain(b, cfg, start, rows)
				wall, cpu, theirs = wall+w, cpu+c, theirs+recvlogical(b, server, db)
				dropSlots(b, server, db)
			}
			n := float64(b.N) * rows
			b.ReportMetric(n/wall.Seconds(), "changes/s")
			b.ReportMetric(cpu.Seconds()*1e6/n, "client-s/M")
			b.ReportMetric(bytesPerRead(b, metrics), "bytes/read")
			b.ReportMetric(n/theirs.Seconds(), "pg_recvlogical-changes/s")
			b.ReportMetric(wall.Seconds()/theirs.Seconds(), "wall-ratio")
		})
	}
}

func bytesPerRead(b *testing.B, r *prometheus.Registry) float64 {
	families, err := r.Gather()
	if err != nil || len(families) != 2 {
		b.Fatal(len(families), err)
	}
	return families[1].Metric[0].Counter.GetValue() / families[0].Metric[0].Counter.GetValue()
}

// dropSlots drops the slots of one round, once their readers are gone.
func dropSlots(b *testing.B, server *testenv.Postgres, db string) {
	for deadline := time.Now().Add(patience); ; {
		err := server.Exec(b.Context(), db, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name IN ('ours', 'theirs', 'latency') AND database = current_database()")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

// drain reads rows changes and returns the wall and CPU time that it took.
func drain(b *testing.B, cfg Config, start capture.Position, rows int) (wall, cpu time.Duration) {
	src, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	if _, err := src.Inspect(b.Context()); err != nil { // waits for the slot
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	before, begin := cpuTime(), time.Now()
	if err := src.Run(ctx, start, &stopAt{newAppender(), rows, cancel}); !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
	return time.Since(begin), cpuTime() - before
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// recvlogical has PostgreSQL's own client read the slot up to the log's end.
func recvlogical(b *testing.B, server *testenv.Postgres, db string) time.Duration {
	var end string
	conn := server.Connect(b, db)
	if err := conn.QueryRow(b.Context(), "SELECT pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		b.Fatal(err)
	}
	program := "/usr/lib/postgresql/15/bin/pg_recvlogical"
	if _, err := os.Stat(program); err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), program, "-d", strings.Replace(server.AdminURL(db), "postgres://", "postgresql://", 1),
		"--slot", "theirs", "--start", "-f", "/dev/null", "-o", "proto_version=1", "-o", "publication_names=drain",
		"--endpos", end, "--no-loop", "--fsync-interval", "0", "--status-interval", "0")
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return time.Since(begin)
}

// BenchmarkLiveLatency measures from before a commit to its Commit at the Emitter, one
// after the other: an operation is one INSERT and its way.
func BenchmarkLiveLatency(b *testing.B) {
	server := testenv.SharedPostgres(b)
	db := server.CreateDatabase(b)
	conn := server.Connect(b, db)
	if _, err := conn.Exec(b.Context(), "CREATE TABLE t (id bigint)"); err != nil {
		b.Fatal(err)
	}
	cfg := Config{URL: server.AdminURL(db), Slot: "latency", Publication: "latency", Log: slog.New(slog.DiscardHandler)}
	if _, err := conn.Exec(b.Context(), "CREATE PUBLICATION latency FOR TABLE t"); err != nil {
		b.Fatal(err)
	}
	src, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	start, _, err := src.Prepare(b.Context(), false)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	came, ended := make(chan time.Time, 1), make(chan error, 1)
	go func() { ended <- src.Run(ctx, start, &ticker{stopAt{appender: newAppender()}, came}) }()
	var waits []time.Duration
	for b.Loop() {
		if _, err := conn.Exec(b.Context(), "INSERT INTO t VALUES (1)"); err != nil {
			b.Fatal(err)
		}
		acknowledged := time.Now()
		waits = append(waits, max(0, (<-came).Sub(acknowledged)))
	}
	cancel()
	if err := errors.Join(src.Close(), <-ended); !errors.Is(err, context.Canceled) {
		b.Error(err)
	}
	dropSlots(b, server, db)
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds()), "p50-µs-after-ack")
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds()), "p99-µs-after-ack")
}

// ticker tells when each commit comes.
type ticker struct {
	stopAt
	came chan time.Time
}

func (t *ticker) Commit(context.Context, capture.Position) error {
	t.came <- time.Now()
	return nil
}
