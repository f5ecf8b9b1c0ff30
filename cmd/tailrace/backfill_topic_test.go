package main

import (
	"context"
	"fmt"
	"maps"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
	"github.com/tailrace/tailrace/stream/subscribe"
)

// A subscriber gets a table's rows into a topic of its own, with what changes meanwhile: it
// ends up with what the table has, and the table's own topic has no row twice.
func TestBackfillForOneSubscriber(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id bigint PRIMARY KEY, v bigint NOT NULL)", "INSERT INTO orders SELECT i, 0 FROM generate_series(1, 6000) i")
	s := settings{name: testenv.Unique("late"), broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(db), more: "    snapshot: never\n"}
	p := s.configure(t).start(t)
	p.ready()
	topic := "for-" + s.name
	id := p.backfill("--table", "public.orders", "--to-topic", topic, "--rate", "1000")
	var b capture.Backfill
	for n := 1; b.Read < 1500; n++ {
		sql(t, pg, db, fmt.Sprintf("UPDATE orders SET v = %d WHERE id IN (%[1]d, 6001 - %[1]d, 1 + %[1]d * 37 %% 6000)", n),
			fmt.Sprintf("DELETE FROM orders WHERE id = %d", 100*n+50), fmt.Sprintf("UPDATE orders SET id = id + 20000 WHERE id = %d", 100*n+10),
			fmt.Sprintf("INSERT INTO orders VALUES (%d, %[1]d)", 10000+n))
		b = p.one(t, id)
	}
	sql(t, pg, db, "INSERT INTO orders VALUES (99999, 7)") // the last that happens
	p.until("at the end of the changes", func() bool {
		return fold(t, p.tail(t, s.name+".public.orders", 1<<30, "--to-end", "--from", "beginning")).rows["99999 7"] == 1
	})
	if b = p.one(t, id); b.State != capture.BackfillRunning {
		t.Fatalf("the changes have come too late: it is %s", b.State)
	}
	if b = p.untilState(id, capture.BackfillDone); b.Read < 5500 || b.Rows > b.Read {
		t.Errorf("%d rows read, %d written", b.Read, b.Rows)
	}

	want := tableRows(t, s.url, "orders")
	have := subscribed(t, p, topic, want)
	if !maps.Equal(have, want) {
		t.Errorf("the subscriber has %d rows, the table %d", len(have), len(want))
	}
	if all := fold(t, p.tail(t, topic, 1<<30, "--to-end", "--from", "beginning")); all.ops["r"] != int(b.Rows) || !maps.Equal(all.rows, want) {
		t.Errorf("the topic has %v, of them read should be %d, and leaves %d rows", all.ops, b.Rows, len(all.rows))
	}
	if own := fold(t, p.tail(t, s.name+".public.orders", 1<<30, "--to-end", "--from", "beginning")); own.ops["r"] != 0 || own.ops["d"] == 0 {
		t.Errorf("the table's own topic has %v", own.ops)
	}
	p.stop(syscall.SIGTERM, 0)
	dropSlot(t, pg, db, s.slot())
}

// subscribed reads a topic as a program would, until it has what is wanted, and returns what
// it has.
func subscribed(t *testing.T, p *process, topic string, want map[string]int) (have map[string]int) {
	t.Helper()
	broker, url := p.addresses()
	client, err := stream.NewClient(stream.Config{Brokers: []string{broker}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	schemas, err := registry.NewClient(registry.ClientConfig{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer schemas.Close()
	type order struct{ ID, V int64 }
	sub, err := subscribe.To[order](t.Context(), subscribe.Config{Client: client, Registry: schemas}, topic)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	rows := map[string]order{} // by the bytes of their keys
	have = map[string]int{}
	text := func(o order) string { return fmt.Sprintf("%d %d", o.ID, o.V) }
	for ch, err := range sub.Changes(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if was, ok := rows[string(ch.Key)]; ok {
			delete(have, text(was))
			delete(rows, string(ch.Key))
		}
		if ch.After != nil {
			rows[string(ch.Key)] = *ch.After
			have[text(*ch.After)] = 1
		}
		if len(have) == len(want) && maps.Equal(have, want) {
			break
		}
	}
	return have
}
