package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailrace/tailrace/deploy/internal/product"
	"github.com/tailrace/tailrace/deploy/internal/workload"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// targetDatabase is where the sink writes, on the same server.
const targetDatabase = "target"

// verdict is what was found in the target.
type verdict struct {
	Target string `json:"target"`
	Equal  bool   `json:"target_equal"`      // every table has the source's checksum
	Half   int    `json:"half_transactions"` // how often a reader saw a part of a transaction
	Polls  int    `json:"polls"`             // how often it looked at tables that had rows
}

// target is the sink's side of the proof.
type target struct {
	pg    *testenv.Postgres
	group *kgo.Client // of the sink's consumer group; nil on the embedded broker
	conn  *pgx.Conn   // of the watcher
	stop  context.CancelFunc
	ended chan error
	found verdict // the watcher's until it has ended
}

// watch makes the target's database, in which a watcher then looks until rest is called.
func watch(ctx context.Context, pg *testenv.Postgres, broker string) (_ *target, err error) {
	if err := pg.Exec(ctx, "postgres", "CREATE DATABASE "+targetDatabase); err != nil {
		return nil, err
	}
	t := &target{pg: pg, ended: make(chan error, 1), found: verdict{Target: "postgres"}}
	if t.conn, err = pgx.Connect(ctx, pg.AdminURL(targetDatabase)); err != nil {
		return nil, err
	}
	if broker != "" {
		if t.group, err = kgo.NewClient(kgo.SeedBrokers(broker)); err != nil {
			return nil, errors.Join(err, t.conn.Close(ctx))
		}
	}
	ctx, t.stop = context.WithCancel(ctx)
	go func() { t.ended <- t.poll(ctx) }()
	return t, nil
}

// rest ends the watcher; further calls do nothing.
func (t *target) rest() error {
	if t.stop == nil {
		return nil
	}
	t.stop()
	t.stop = nil
	err := <-t.ended
	if t.group != nil {
		t.group.Close()
	}
	return errors.Join(err, t.conn.Close(context.Background()))
}

// poll looks at the target until ctx ends.
func (t *target) poll(ctx context.Context) error {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// A look is not broken off: that would cost the connection.
		if err := t.look(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("watch the target: %w", err)
		}
	}
}

// look compares the hot rows with their mirror, as of one moment. A table that is not
// there yet has no rows.
func (t *target) look(ctx context.Context) error {
	tx, err := t.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) // it only read
	var hot, mirror bool
	exist := fmt.Sprintf("SELECT to_regclass('public.hot') IS NOT NULL, to_regclass('public.%s') IS NOT NULL", workload.Mirror)
	if err := tx.QueryRow(ctx, exist).Scan(&hot, &mirror); err != nil || !hot && !mirror {
		return err
	}
	rows := func(name string, exists bool) string {
		if exists {
			return "(SELECT id, writer, wseq, ver FROM public." + name + ")"
		}
		return "(SELECT 0 AS id, 0 AS writer, 0 AS wseq, 0 AS ver WHERE false)"
	}
	var all, different int
	err = tx.QueryRow(ctx, fmt.Sprintf(`SELECT count(*), count(*) FILTER (WHERE (h.writer, h.wseq, h.ver) IS DISTINCT FROM (m.writer, m.wseq, m.ver))
		FROM %s h FULL JOIN %s m USING (id)`, rows("hot", hot), rows(workload.Mirror, mirror))).Scan(&all, &different)
	if all > 0 {
		t.found.Polls++
	}
	if different > 0 {
		t.found.Half++
	}
	return err
}

// forget takes the dead process out of the sink's consumer group, so that its successor
// need not wait until the broker does.
func (t *target) forget(ctx context.Context) error {
	if t.group == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	const group = "tailrace-sink-" + product.Sink
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	groups, err := describe.RequestWith(ctx, t.group)
	if err != nil {
		return err
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	for _, g := range groups.Groups {
		for _, m := range g.Members {
			member := kmsg.NewLeaveGroupRequestMember()
			member.MemberID = m.MemberID
			leave.Members = append(leave.Members, member)
		}
	}
	if len(leave.Members) == 0 {
		return nil
	}
	left, err := leave.RequestWith(ctx, t.group)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(left.ErrorCode)
}

// arrived says whether the barrier's row is in the target.
func (t *target) arrived(ctx context.Context) (bool, error) {
	conn, err := pgx.Connect(ctx, t.pg.AdminURL(targetDatabase))
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	there := false
	err = conn.QueryRow(ctx, "SELECT to_regclass('public.barrier') IS NOT NULL").Scan(&there)
	if err == nil && there {
		err = conn.QueryRow(ctx, "SELECT count(*) > 0 FROM public.barrier").Scan(&there)
	}
	return there, err
}

// compare compares the checksums of all tables and says which differ.
func (t *target) compare(ctx context.Context) ([]string, error) {
	var different []string
	for _, table := range append(workload.Tables[:len(workload.Tables):len(workload.Tables)], workload.Barrier) {
		want, err := checksum(ctx, t.pg.AdminURL(database), table.Name)
		if err != nil {
			return nil, err
		}
		got, err := checksum(ctx, t.pg.AdminURL(targetDatabase), table.Name)
		if err != nil {
			return nil, err
		}
		if got != want {
			different = append(different, fmt.Sprintf("target: %s is %s, the source's %s", table.Name, got, want))
		}
	}
	t.found.Equal = len(different) == 0
	return different, nil
}

// checksum is a table's number of rows and a sum over all of its columns, whatever the
// order of its rows; "missing" without the table.
func checksum(ctx context.Context, url, table string) (string, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", "public."+table).Scan(&there); err != nil || !there {
		return "missing", err
	}
	var sum string
	err = conn.QueryRow(ctx, fmt.Sprintf(`SELECT count(*) || ' rows ' || md5(coalesce(string_agg(h, '' ORDER BY h COLLATE "C"), ''))
		FROM (SELECT md5(r::text) AS h FROM public.%s r) x`, table)).Scan(&sum)
	return sum, err
}
