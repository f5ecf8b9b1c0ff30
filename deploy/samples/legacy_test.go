package samples

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// legacyTables are the tables that are carried over, as both sides must have them.
var legacyTables = [][2]string{
	{`SELECT "CUCUST", "CUNAME", "CUCITY", "CUSTAT", "CULIMT", "CUDATE" FROM "CUSMST" ORDER BY 1`, `SELECT * FROM legacy."CUSMST" ORDER BY 1`},
	{`SELECT * FROM "ORDHDR" ORDER BY 1, 2`, `SELECT * FROM legacy."ORDHDR" ORDER BY 1, 2`},
	{`SELECT * FROM "ORDLIN" ORDER BY 1, 2, 3`, `SELECT * FROM legacy."ORDLIN" ORDER BY 1, 2, 3`},
	{`SELECT * FROM "HSTLOG" ORDER BY 1, 2, 3`, `SELECT * FROM legacy."HSTLOG" ORDER BY 1, 2, 3`},
}

var legacyDatabases = map[string]string{"LEGACY_URL": "source.sql", "APP_URL": "target.sql"}

// order is the transaction by which the legacy programs enter an order: lines one by one,
// the header's total after each.
func order(number, lines int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `BEGIN; INSERT INTO "ORDHDR" ("OHCONO", "OHORDN", "OHCUST") VALUES (1, %d, '10001');`, number)
	for line := 1; line <= lines; line++ {
		fmt.Fprintf(&b, `INSERT INTO "ORDLIN" VALUES (1, %d, %d, 'ITEM %d', %d, 2.5);
			UPDATE "ORDHDR" SET "OHLINS" = %d, "OHTOTL" = "OHTOTL" + %d * 2.5 WHERE "OHCONO" = 1 AND "OHORDN" = %d;`, number, line, line, line, line, line, number)
	}
	return b.String() + "COMMIT"
}

func TestLegacyToApp(t *testing.T) { legacyToApp(t, nil) }

// The same by way of Apache Kafka: a flag or its variable takes the place of the broker.
func TestLegacyToAppOnKafka(t *testing.T) {
	node := testenv.NewKafka(t, testenv.KafkaOptions{})
	legacyToApp(t, map[string]string{"TAILRACE_BROKERS": node.Addr()})
}

func legacyToApp(t *testing.T, more map[string]string) {
	s := start(t, "legacy-to-app", legacyDatabases, more)
	s.becomes("APP_URL", `SELECT * FROM app.orders ORDER BY id`,
		"1-700001|10001|2024-02-29|shipped|31.50|leave at the gate", "ring twice", "1-700002|10002|~|entered|7.25|~", "2-700001|10001|2024-03-01|cancelled|0.00|~")
	s.becomes("APP_URL", `SELECT * FROM app.customers ORDER BY id`,
		"10001|MULLER & SOHNE|WIEN|active|5000.00|1994-03-01", "10002|O'HARA LTD|CORK|on hold|0.00|~", "10003|CAFÉ DE L'ÉTÉ|LIÈGE|closed|250.50|~")

	watch, cancel := context.WithCancel(t.Context())
	defer cancel()
	looks := make(chan int, 1)
	go func() { looks <- s.tornOrders(watch) }()
	for n := range 40 {
		s.exec("LEGACY_URL", order(700100+n, 1+n%7))
	}
	s.exec("LEGACY_URL",
		`UPDATE "ORDHDR" SET "OHSTAT" = '20', "OHTEXT" = repeat('wide ', 40) WHERE "OHORDN" >= 700110`,
		`BEGIN; DELETE FROM "ORDLIN" WHERE "OLORDN" = 700100; DELETE FROM "ORDHDR" WHERE "OHORDN" = 700100; COMMIT`,
		`BEGIN; UPDATE "ORDLIN" SET "OLORDN" = 799999 WHERE "OLORDN" = 700101; UPDATE "ORDHDR" SET "OHORDN" = 799999 WHERE "OHORDN" = 700101; COMMIT`,
		`UPDATE "CUSMST" SET "CUCUST" = '20001', "CUPSWD" = 'changed' WHERE "CUCUST" = '10001'`,
		`DELETE FROM "CUSMST" WHERE "CUSTAT" = 'D'`,
		`BEGIN; INSERT INTO "CUSMST" ("CUCUST") VALUES ('666'); ROLLBACK`,
		`DELETE FROM "HSTLOG" WHERE ctid = (SELECT min(ctid) FROM "HSTLOG")`, `INSERT INTO "HSTLOG" VALUES ('PICK', 20240302, '')`)
	s.same("LEGACY_URL", "APP_URL", legacyTables...)
	s.becomes("APP_URL", `SELECT count(*), count(*) FILTER (WHERE state = 'picked'), sum(total), count(*) FILTER (WHERE id = '1-799999') FROM app.orders`, "42|30|1173.75|1")

	s.exec("LEGACY_URL", `TRUNCATE "HSTLOG"`, order(700900, 3))
	s.stop()
	s.exec("LEGACY_URL", `UPDATE "CUSMST" SET "CUCITY" = 'while nobody looked' WHERE "CUCUST" = '10002'`, order(700901, 40))
	s.run()
	s.same("LEGACY_URL", "APP_URL", legacyTables...)
	cancel()
	if n := <-looks; n < 10 {
		t.Errorf("looked for torn orders %d times only", n)
	}
	s.becomes("APP_URL", `BEGIN; DELETE FROM legacy."ORDLIN" WHERE "OLORDN" = 700901 AND "OLLINE" = 40; SELECT "OHORDN", lines FROM app.torn_orders; ROLLBACK`, "700901|39")
	s.becomes("APP_URL", `SELECT count(*) FROM information_schema.columns WHERE column_name IN ('CUPSWD', 'CUFILL')`, "0")
	s.stop()
}

// tornOrders looks for orders that are not whole until ctx ends, and counts how often it
// looked.
func (s *sample) tornOrders(ctx context.Context) (looks int) {
	conn, err := pgx.Connect(ctx, s.env["APP_URL"])
	if err != nil {
		s.Error(err)
		return 0
	}
	defer conn.Close(context.Background())
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ; ; looks++ {
		<-tick.C
		var torn int
		err := conn.QueryRow(ctx, `SELECT count(*) FROM app.torn_orders`).Scan(&torn)
		if ctx.Err() != nil {
			return looks
		}
		if err != nil || torn > 0 {
			s.Errorf("%d torn orders, %v", torn, err)
			return looks
		}
	}
}
