package demo

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/deploy/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Two shops are equal until one of them has one value, row or table otherwise.
func TestCompare(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	source, target := pg.CreateDatabase(t), pg.CreateDatabase(t)
	d := &databases{source: pg.AdminURL(source), target: pg.AdminURL(target)}
	for _, address := range []string{d.source, d.target} {
		if n, err := openShop(t.Context(), address); err != nil || n < 1000 {
			t.Fatalf("%d rows, %v", n, err)
		}
	}
	differing := func() (names []string) {
		t.Helper()
		list, err := d.compare(t.Context())
		if err != nil || len(list) != 8 {
			t.Fatalf("%d tables, %v", len(list), err)
		}
		for _, one := range list {
			if one.Source != one.Target {
				names = append(names, one.Name)
			}
		}
		return names
	}
	if got := differing(); got != nil {
		t.Errorf("equal shops differ in %q", got)
	}
	for _, c := range []struct{ sql, table string }{
		{"UPDATE products SET tags = '{}' WHERE sku = 'P00007'", "products"},
		{"UPDATE customers SET email = '' WHERE id = 3", "customers"}, // was null
		{"DELETE FROM payments WHERE id = 9", "payments"},
		{"ALTER TABLE orders RENAME details TO d", "orders"},
		{"DROP TABLE closings", "closings"},
	} {
		if err := pg.Exec(t.Context(), target, c.sql); err != nil {
			t.Fatal(err)
		}
		if got := differing(); !slices.Contains(got, c.table) {
			t.Errorf("after %s: got %q", c.sql, got)
		}
	}
}

// What has not occurred, and what differs, is named.
func TestMissing(t *testing.T) {
	all := Result{SnapshotRows: 1, Inserts: 1, Updates: 1, Deletes: 1, DDL: 1, keyChanges: 1, multiTable: 1, Tables: []Table{{"a", "1:x", "1:x"}}}
	if got := all.Missing(); got != nil || !strings.HasSuffix(all.String(), "source and target are equal") {
		t.Errorf("got %q\n%s", got, &all)
	}
	bad := Result{SnapshotRows: 1, Inserts: 1, Updates: 1, Deletes: 1, keyChanges: 1, multiTable: 1, Tables: []Table{{"a", "1:x", "1:y"}}}
	if got := bad.Missing(); !slices.Equal(got, []string{"table a differs", "no ALTER TABLE occurred"}) || !strings.Contains(bad.String(), "FAILED: table a differs; ") {
		t.Errorf("got %q\n%s", got, &bad)
	}
	if got := new(Result).Missing(); len(got) != 8 {
		t.Errorf("got %q", got)
	}
}

func TestLatency(t *testing.T) {
	if got := latency(nil); got != (Latency{}) {
		t.Errorf("got %v", got)
	}
	var list []time.Duration
	for i := range 100 {
		list = append(list, time.Duration(100-i)*time.Millisecond)
	}
	if got := latency(list); got != (Latency{51, 100}) {
		t.Errorf("got %v", got)
	}
}

// The picture is drawn over the last one on a terminal; elsewhere there is a line each.
func TestView(t *testing.T) {
	f := &frame{status: httpapi.Status{
		Captures: []httpapi.Capture{{State: httpapi.Running, Events: map[string]uint64{"create": 7}}},
		Sinks:    []httpapi.Sink{{State: httpapi.Waiting, Events: map[string]uint64{"create": 3, "read": 2}, Error: &httpapi.Problem{Message: "no route"}}},
	}, last: []string{"order 1"}}
	var live, plain bytes.Buffer
	for _, v := range []*view{{out: &live, live: true}, {out: &plain}} {
		v.show(f)
		v.show(f)
	}
	for _, want := range []string{"\x1b[10A\x1b[J", "7 changes captured, capture running, sink waiting, no route", "5 changes applied", "order 1"} {
		if !strings.Contains(live.String(), want) {
			t.Errorf("the picture lacks %q:\n%s", want, live.String())
		}
	}
	if strings.Count(plain.String(), "\n") != 2 || !strings.Contains(plain.String(), "5 changes applied") || strings.Contains(plain.String(), "\x1b") {
		t.Errorf("got %q", plain.String())
	}
}

// A private server takes connections with its password only, and is gone when stopped.
func TestServer(t *testing.T) {
	dir, err := temporary()
	if err != nil {
		t.Fatal(err)
	}
	s, err := startServer(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	u := s.url()
	conn, err := connect(t.Context(), u.String())
	if err != nil {
		t.Error(err)
	} else {
		closeConn(conn)
	}
	bad := strings.Replace(u.String(), s.password, "wrong", 1)
	if conn, err := connect(t.Context(), bad); err == nil {
		closeConn(conn)
		t.Error("took a wrong password")
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := connect(context.WithoutCancel(t.Context()), u.String()); err == nil {
		t.Error("still answers")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
