package postgres

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
)

// A target without room says so, takes nothing by halves, and goes on when there is room. It
// takes a small file system, which only root can make, and not in every container.
func TestTargetFull(t *testing.T) {
	pg := testenv.NewPostgres(t, testenv.PGOptions{})
	dir := filepath.Join(pg.Dir, "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a full target is not tested: no small file system can be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(context.Background(), "immediate"); err != nil {
			t.Error(err)
		}
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	data, err := os.Stat(filepath.Join(pg.Dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	owner := data.Sys().(*syscall.Stat_t)
	if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
	b := benchOn(t, pg)
	b.exec("create tablespace small location '"+dir+"'",
		"create table filler tablespace small as select repeat('x', 1000) from generate_series(1, 2500)",
		"create table x (id int primary key, v text) tablespace small", "alter table x alter v set storage external")
	tab := b.Table(&schemas.Table{Namespace: "public", Name: "x", Key: []int{0}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.Int32}}, {Name: "v", Type: schemas.Type{Kind: schemas.String}},
	}}, 1)
	b.Begin()
	for i := range 1500 {
		c := create(tab, i, strings.Repeat("y", 1200))
		b.Write(&c)
	}
	b.End()
	b.Flush()
	_, ended := b.start()
	if err := ended(); err == nil || sinks.IsFatal(err) || !strings.Contains(sinks.HintOf(err), "no room") || sinks.CodeOf(err) != sinks.CodeEnvironment {
		t.Fatalf("the sink says %v, hint %q", err, sinks.HintOf(err))
	}
	b.want("x")
	b.exec("drop table filler", "checkpoint", "vacuum x")
	b.start()
	var n int
	for n != 1500 {
		if err := b.conn.QueryRow(t.Context(), "select count(*) from x").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != 0 && n != 1500 {
			t.Fatalf("%d of 1500 rows of a transaction are there", n)
		}
	}
}
