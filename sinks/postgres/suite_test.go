package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/schemas/registry/registrytest"
	"github.com/tailrace/tailrace/sinks"
	"github.com/tailrace/tailrace/sinks/sinktest"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// source is a broker in memory with a registry beside it.
func source(tb testing.TB) subscribe.Config {
	tb.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cluster.Close)
	client, err := stream.NewClient(stream.Config{Brokers: cluster.ListenAddrs(), Timeout: 20 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	reg, err := registry.NewClient(registry.ClientConfig{URL: registrytest.Start(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(reg.Close)
	return subscribe.Config{Client: client, Registry: reg, MaxWait: 100 * time.Millisecond}
}

// text of a table: each row's columns joined by |, null as \N.
const textSQL = `select array_to_string(array(select coalesce(value, '\N') from jsonb_each_text(to_jsonb(t)) join pg_attribute
	on attrelid = $1::text::regclass and attname = key order by attnum), '|') collate "C" from %s t order by 1`

func readTable(tb testing.TB, conn *pgx.Conn, table string) []string {
	tb.Helper()
	quoted := quoteTable("public", table)
	var has bool
	if err := conn.QueryRow(context.Background(), "select to_regclass($1::text) is not null", quoted).Scan(&has); err != nil {
		tb.Fatal(err)
	}
	if !has {
		return nil
	}
	rows, err := conn.Query(context.Background(), fmt.Sprintf(textSQL, quoted), quoted)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestConformance(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	var db string
	sinktest.Run(t, sinktest.Target{
		Source: source,
		Refuse: func(tb testing.TB, refuse bool) {
			sql := "alter table items drop constraint poison"
			if refuse {
				sql = fmt.Sprintf("alter table items add constraint poison check (v <> %d)", sinktest.Poison)
			}
			if err := pg.Exec(context.Background(), db, sql); err != nil {
				tb.Fatal(err)
			}
		},
		New: func(tb testing.TB, _ subscribe.Config) (func(string) (sinks.Sink, error), func(testing.TB, string) []string) {
			db = pg.CreateDatabase(tb)
			db := db
			conn := pg.Connect(tb, db)
			return func(name string) (sinks.Sink, error) {
				return New(Config{Name: name, URL: pg.AdminURL(db), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
			}, func(tb testing.TB, table string) []string { return readTable(tb, conn, table) }
		},
	})
}
