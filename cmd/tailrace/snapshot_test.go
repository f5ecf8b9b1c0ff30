package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/show"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// folded is what a topic's records leave of a table.
type folded struct {
	rows  map[string]int // how often a row is there, by its text
	ops   map[string]int
	epoch uint64 // the newest
}

// fold applies records in order: of a table with the key id, each partition by itself.
func fold(t *testing.T, records []show.Record) folded {
	t.Helper()
	type row struct {
		ID, V int64
	}
	f := folded{rows: map[string]int{}, ops: map[string]int{}}
	keyed := map[int32]map[string]row{}
	count := func(r row, n int) {
		text := fmt.Sprintf("%d %d", r.ID, r.V)
		if f.rows[text] += n; f.rows[text] == 0 {
			delete(f.rows, text)
		}
	}
	for _, r := range records {
		var value struct {
			Op            string
			Before, After *row
			Source        struct{ Snapshot string }
		}
		if r.Tombstone {
			continue
		}
		if err := json.Unmarshal(r.Value, &value); err != nil {
			t.Fatalf("%v: %s", err, r.Value)
		}
		read := value.Op == "r" || value.Op == "t"
		of := value.Source.Snapshot // a chunk's rows are incremental
		if (of == "true" || of == "incremental" && value.Op == "r") != read || (len(r.Mark.Flags) > 0) != read {
			t.Fatalf("%s of %s with flags %v and snapshot %s", value.Op, r.Topic, r.Mark.Flags, value.Source.Snapshot)
		}
		f.ops[value.Op]++
		f.epoch = max(f.epoch, r.Mark.Epoch)
		rows := keyed[r.Partition]
		if rows == nil || value.Op == "t" {
			for _, gone := range rows {
				count(gone, -1)
			}
			rows = map[string]row{}
			keyed[r.Partition] = rows
		}
		key := string(r.Key)
		if key == "null" || key == "" { // a record of its own
			key = fmt.Sprint(len(rows), f.ops)
		}
		if was, ok := rows[key]; ok {
			count(was, -1)
			delete(rows, key)
		}
		if value.After != nil {
			rows[key] = *value.After
			count(*value.After, 1)
		}
	}
	return f
}

// tableRows is what the database has of it.
func tableRows(t *testing.T, url, table string) map[string]int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "SELECT id::bigint, v::bigint FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	var id, v int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &v}, func() error { out[fmt.Sprintf("%d %d", id, v)]++; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// SIGTERM and SIGKILL while the tables are read. What cannot be read in chunks is read again,
// in a new epoch, after a TRUNCATE of every table; what can goes on in the same epoch where it
// stood. In the end the topics hold what the database has.
func TestKillDuringSnapshot(t *testing.T) {
	for name, broker := range map[string]func(*testing.T) string{"embedded": embeddedBroker, "kafka": kafkaBroker} {
		t.Run(name, func(t *testing.T) {
			pg := testenv.SharedPostgres(t)
			db := pg.CreateDatabase(t)
			const rows, rate = 25000, 8000
			const underWay = 4 * rate / 4 // chunks, and rows of each: who begins anew reads more again
			sql(t, pg, db, "CREATE TABLE orders (id int PRIMARY KEY, v int, fill text)", "ALTER TABLE orders ALTER fill SET STORAGE EXTERNAL",
				fmt.Sprintf("INSERT INTO orders SELECT i, 0, repeat(md5(i::text), 5) FROM generate_series(1, %d) i", rows),
				"CREATE TABLE log (id int, v int, fill text)", "ALTER TABLE log ALTER fill SET STORAGE EXTERNAL", "ALTER TABLE log REPLICA IDENTITY FULL",
				"INSERT INTO log SELECT i / 2, 0, repeat(md5(i::text), 55) FROM generate_series(1, 25000) i",
				"CREATE TABLE done (id int PRIMARY KEY)")
			s := settings{name: testenv.Unique("snap"), broker: broker(t), registry: ownRegistry(t), url: pg.AdminURL(db) + "&options=-c%20wal_sender_timeout%3D1000",
				more: fmt.Sprintf("    backfill: { readers: 1, rate: %d }\n", rate)}
			in := s.configure(t)
			status := func(p *process) (c httpapi.Capture) {
				var all httpapi.Status
				if _, body := p.get("/status"); json.Unmarshal([]byte(body), &all) == nil && len(all.Captures) == 1 {
					c = all.Captures[0]
				}
				return c
			}

			interrupted := uint64(0) // a machine may be so busy that a signal comes late
			interrupt := func(s syscall.Signal, code int) {
				t.Helper()
				p := in.start(t)
				runs := func() bool { return strings.Contains(p.log.String(), `"msg":"capture runs"`) }
				p.until("reading rows", func() bool { return runs() || status(p).Events["read"] > 200 })
				p.stop(s, code)
				if !runs() {
					interrupted++
				}
			}
			interrupt(syscall.SIGTERM, 0)
			interrupt(syscall.SIGKILL, -1)
			sql(t, pg, db, "UPDATE orders SET v = 1 WHERE id % 100 = 0", "DELETE FROM orders WHERE id % 1000 = 1", "INSERT INTO orders VALUES (0, 2, '')")

			chunks := in.start(t)
			chunks.until("reading orders in chunks", func() bool {
				for _, b := range status(chunks).Backfills {
					if b.Name == "orders" && b.Read > underWay+rows/20 && b.Read < rows*3/4 {
						return true
					}
				}
				return false
			})
			chunks.stop(syscall.SIGKILL, -1)
			sql(t, pg, db, "UPDATE orders SET v = 2 WHERE id % 70 = 0", "DELETE FROM orders WHERE id % 700 = 1")

			last := in.start(t)
			last.ready()
			sql(t, pg, db, "UPDATE orders SET v = 3 WHERE id % 500 = 0", "DELETE FROM orders WHERE id % 1000 = 2", "INSERT INTO log VALUES (1000, 1)", "INSERT INTO done VALUES (1)")
			all := func(table string) folded {
				return fold(t, in.tail(t, s.name+".public."+table, 1<<30, "--to-end", "--from", "beginning"))
			}
			var orders, keyless folded
			last.until("past the snapshot", func() bool { // each topic is seen at another moment
				orders, keyless = all("orders"), all("log")
				return all("done").ops["c"] == 1 && maps.Equal(orders.rows, tableRows(t, s.url, "orders")) && maps.Equal(keyless.rows, tableRows(t, s.url, "log"))
			})
			last.stop(syscall.SIGTERM, 0)

			if interrupted == 0 || orders.epoch != 1+interrupted || orders.ops["t"] < 4 || keyless.ops["t"] < 4 {
				t.Errorf("interrupted %d times: epoch %d, %v, without a key %v", interrupted, orders.epoch, orders.ops, keyless.ops)
			}
			if r := orders.ops["r"]; r < rows*95/100 || r > rows+underWay {
				t.Errorf("%d rows of %d were read in chunks, %d of them may be read again", r, rows, underWay)
			}
			dropSlot(t, pg, db, s.slot())
		})
	}
}
