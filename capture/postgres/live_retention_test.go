package postgres

import (
	"fmt"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// What the server keeps is told while the slot is there, with its bound, and that it is lost.
func TestLiveRetention(t *testing.T) {
	server := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"max_slot_wal_keep_size": "32MB", "max_wal_size": "48MB", "min_wal_size": "32MB"}})
	l := newLive(t, server, "CREATE TABLE t (id int PRIMARY KEY)")
	r := NewRetention(l.cfg)
	t.Cleanup(func() { _ = r.Close() })
	read := func() *capture.Retained {
		t.Helper()
		kept, err := r.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return kept
	}
	if kept := read(); kept != nil {
		t.Errorf("without a slot: %+v", kept)
	}
	l.exec(fmt.Sprintf("SELECT pg_create_logical_replication_slot('%s', 'pgoutput')", l.cfg.Slot))
	before := read()
	if before == nil || before.Bound != 32<<20 || before.Lost || before.Bytes > 1<<20 {
		t.Fatalf("with a new slot: %+v", before)
	}
	if ratio, ok := before.Headroom(); !ok || ratio < 0.9 {
		t.Errorf("headroom %v, %v", ratio, ok)
	}
	l.exec("INSERT INTO t SELECT generate_series(1, 50000)")
	after := read()
	if after.Bytes <= before.Bytes+1<<20 {
		t.Errorf("after many changes %d bytes are kept, before %d", after.Bytes, before.Bytes)
	}
	for i := 0; i < 20 && !read().Lost; i++ {
		l.exec("DELETE FROM t", "INSERT INTO t SELECT generate_series(1, 100000)", "SELECT pg_switch_wal()", "CHECKPOINT")
	}
	lost := read()
	if ratio, ok := lost.Headroom(); !lost.Lost || !ok || ratio != 0 {
		t.Errorf("in the end: %+v, headroom %v", lost, ratio)
	}
	l.exec(fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", l.cfg.Slot))
	if kept := read(); kept != nil {
		t.Errorf("without the slot: %+v", kept)
	}
}
