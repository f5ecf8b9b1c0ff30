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
		if (value.Source.Snapshot == "true") != read || (len(r.Mark.Flags) > 0) != read {
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

// SIGTERM and SIGKILL in the middle of the snapshot: the next start reads the tables again,
// in a new epoch, after a TRUNCATE; what the topics then hold is what the database has.
func TestKillDuringSnapshot(t *testing.T) {
	for name, broker := range map[string]func(*testing.T) string{"embedded": embeddedBroker, "kafka": kafkaBroker} {
		t.Run(name, func(t *testing.T) {
			pg := testenv.SharedPostgres(t)
			db := pg.CreateDatabase(t)
			sql(t, pg, db, "CREATE TABLE orders (id int PRIMARY KEY, v int, fill text)", "ALTER TABLE orders ALTER fill SET STORAGE EXTERNAL",
				"INSERT INTO orders SELECT i, 0, repeat(md5(i::text), 55) FROM generate_series(1, 25000) i",
				"CREATE TABLE log (id int, v int)", "ALTER TABLE log REPLICA IDENTITY FULL", "INSERT INTO log SELECT i / 2, 0 FROM generate_series(1, 100) i",
				"CREATE TABLE done (id int PRIMARY KEY)")
			s := settings{name: testenv.Unique("snap"), broker: broker(t), registry: ownRegistry(t), url: pg.AdminURL(db) + "&options=-c%20wal_sender_timeout%3D1000"}
			in := s.configure(t)

			interrupted := uint64(0) // a machine may be so busy that a signal comes late
			interrupt := func(s syscall.Signal, code int) {
				t.Helper()
				p := in.start(t)
				runs := func() bool { return strings.Contains(p.log.String(), `"msg":"capture runs"`) }
				p.until("reading rows", func() bool {
					var status httpapi.Status
					_, body := p.get("/status")
					return runs() || json.Unmarshal([]byte(body), &status) == nil && len(status.Captures) == 1 && status.Captures[0].Events["read"] > 200
				})
				p.stop(s, code)
				if !runs() {
					interrupted++
				}
			}
			interrupt(syscall.SIGTERM, 0)
			interrupt(syscall.SIGKILL, -1)
			sql(t, pg, db, "UPDATE orders SET v = 1 WHERE id % 100 = 0", "DELETE FROM orders WHERE id % 1000 = 1", "INSERT INTO orders VALUES (0, 2, '')")

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

			if interrupted == 0 || orders.epoch < 1+interrupted || orders.ops["t"] < 4 || orders.ops["r"] < 24975 || keyless.ops["t"] < 4 {
				t.Errorf("interrupted %d times: epoch %d, %v, without a key %v", interrupted, orders.epoch, orders.ops, keyless.ops)
			}
			if want := tableRows(t, s.url, "orders"); !maps.Equal(orders.rows, want) {
				t.Errorf("orders: %d rows, want %d", len(orders.rows), len(want))
			}
			if want := tableRows(t, s.url, "log"); !maps.Equal(keyless.rows, want) {
				t.Errorf("log: %v rows, want %v", keyless.rows, want)
			}
			dropSlot(t, pg, db, s.slot())
		})
	}
}
