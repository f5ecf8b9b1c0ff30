package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/sinks"
)

// The position and the fence of each partition, in the target. Unsigned numbers stand as
// the bigint with the same bits. filled says that a row of the partition was applied, so
// that its table must be there. backend is the server process of the connection that took
// the partition last.
const positionDDL = `create table if not exists tailrace."position" (
	sink text not null, topic text not null, "partition" integer not null,
	fence bigint not null, next_offset bigint not null default 0,
	epoch bigint not null default 0, file bigint not null default 0, pos bigint not null default 0, "row" bigint not null default 0,
	n bigint not null default 0, filled boolean not null default false, backend integer not null, updated_at timestamptz not null default now(),
	primary key (sink, topic, "partition"))`

// positionLock is the advisory lock under which the table is made.
const positionLock = 0x7461696c72616365 // "tailrace"

// database is a connection, or a transaction that is open on one.
type database interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ensurePositions makes the table if it is not there.
func ensurePositions(ctx context.Context, conn database) error {
	var has bool
	if err := conn.QueryRow(ctx, `select to_regclass('tailrace."position"') is not null`).Scan(&has); err != nil || has {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, int64(positionLock)); err != nil {
			return err
		}
		// IF NOT EXISTS would ask for the privilege also if there is nothing to make.
		var has bool
		if err := tx.QueryRow(ctx, `select exists (select from pg_catalog.pg_namespace where nspname = 'tailrace')`).Scan(&has); err != nil {
			return err
		}
		ddl := positionDDL
		if !has {
			ddl = "create schema tailrace; " + ddl
		}
		_, err := tx.Conn().PgConn().Exec(ctx, ddl).ReadAll()
		return err
	})
}

// columnsOf splits partitions into what unnest takes.
func columnsOf(ps []sinks.Partition) (topics []string, numbers []int32) {
	for _, p := range ps {
		topics, numbers = append(topics, p.Topic), append(numbers, p.Number)
	}
	return topics, numbers
}

// byName orders partitions, so that two members lock rows in one order.
func byName(a, b sinks.Partition) int {
	if a.Topic != b.Topic {
		if a.Topic < b.Topic {
			return -1
		}
		return 1
	}
	return int(a.Number) - int(b.Number)
}

// takeTimeout is for how long a predecessor's transaction may hold the positions before its
// connection is ended. One that is alive and slow is fenced by that, which it is anyway.
const takeTimeout = "3s"

// held is what the target has of a partition that this sink took.
type held struct {
	fence  int64
	at     sinks.Position
	filled bool
}

// raise raises the fences.
func raise(ctx context.Context, conn database, sink string, ps []sinks.Partition) (map[sinks.Partition]held, error) {
	ps = slices.SortedFunc(slices.Values(ps), byName)
	all := make(map[sinks.Partition]held)
	topics, numbers := columnsOf(ps)
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `set local lock_timeout = '`+takeTimeout+`'`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `insert into tailrace."position" as p (sink, topic, "partition", fence, backend)
			select $1, t, n, 1, pg_backend_pid() from unnest($2::text[], $3::int[]) v(t, n) order by t, n
			on conflict (sink, topic, "partition") do update set fence = p.fence + 1, backend = excluded.backend
			returning topic, "partition", fence, next_offset, epoch, file, pos, "row", n, filled`, sink, topics, numbers)
		if err != nil {
			return err
		}
		for rows.Next() {
			var p sinks.Partition
			var h held
			var epoch, file, pos, row, n int64
			if err := rows.Scan(&p.Topic, &p.Number, &h.fence, &h.at.Offset, &epoch, &file, &pos, &row, &n, &h.filled); err != nil {
				rows.Close()
				return err
			}
			h.at.N = uint64(n)
			h.at.Place = sinks.Place{Epoch: uint64(epoch), File: uint64(file), Pos: uint64(pos), Row: uint64(row)}
			all[p] = h
		}
		return rows.Err()
	})
	return all, err
}

// evict ends the connections of predecessors that hold the partitions: a frozen one would
// keep its locks, and can no longer write anyway.
func evict(ctx context.Context, conn *pgx.Conn, cfg *Config, ps []sinks.Partition) error {
	topics, numbers := columnsOf(ps)
	_, err := conn.Exec(ctx, `select pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a
		where a.application_name = $4 and a.pid <> pg_backend_pid() and a.pid in (
			select p.backend from tailrace."position" p join unnest($2::text[], $3::int[]) v(t, num) on p.topic = v.t and p."partition" = v.num where p.sink = $1)`,
		cfg.Name, topics, numbers, cfg.applicationName())
	if err != nil {
		return fmt.Errorf("end the predecessor's connection: %w", err)
	}
	return nil
}

// take is raise; a predecessor's transaction that stands in the way is ended.
func take(ctx context.Context, conn *pgx.Conn, cfg *Config, ps []sinks.Partition) (map[sinks.Partition]held, error) {
	for attempt := 0; ; attempt++ {
		all, err := raise(ctx, conn, cfg.Name, ps)
		if sqlState(err) != stateLockTimeout || attempt == 5 {
			return all, err
		}
		if err := evict(ctx, conn, cfg, ps); err != nil {
			return nil, err
		}
		cfg.Log.Warn("ended the connection of an earlier owner of the partitions", "sink", cfg.Name, "waited", takeTimeout)
	}
}

// move writes positions, unless a fence was raised since.
func move(ctx context.Context, conn *pgx.Conn, sink string, taken map[sinks.Partition]held, filled map[sinks.Partition]bool, to map[sinks.Partition]sinks.Position) error {
	ps := slices.SortedFunc(maps.Keys(to), byName)
	topics, numbers := columnsOf(ps)
	fences, fills, columns := make([]int64, len(ps)), make([]bool, len(ps)), [6][]int64{}
	for i, p := range ps {
		fences[i], fills[i] = taken[p].fence, filled[p]
		q := to[p]
		for c, v := range [6]int64{q.Offset, int64(q.Epoch), int64(q.File), int64(q.Pos), int64(q.Row), int64(q.N)} {
			columns[c] = append(columns[c], v)
		}
	}
	tag, err := conn.Exec(ctx, `update tailrace."position" p
		set next_offset = v.o, epoch = v.e, file = v.f, pos = v.l, "row" = v.r, n = v.n, filled = (p.filled or v.filled) and (v.o > 0 or v.n > 0), updated_at = now()
		from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::boolean[])
			v(topic, num, fence, o, e, f, l, r, n, filled)
		where p.sink = $1 and p.topic = v.topic and p."partition" = v.num and p.fence = v.fence`,
		sink, topics, numbers, fences, columns[0], columns[1], columns[2], columns[3], columns[4], columns[5], fills)
	if err != nil {
		return fmt.Errorf("write the position: %w", err)
	}
	if tag.RowsAffected() != int64(len(ps)) {
		return sinks.ErrFenced
	}
	return nil
}

// hold locks the positions of all partitions that were taken, unless a fence was raised
// since. A successor that waits for them knows whose connection to end.
func hold(ctx context.Context, conn *pgx.Conn, sink string, taken map[sinks.Partition]held) error {
	ps := slices.SortedFunc(maps.Keys(taken), byName)
	topics, numbers := columnsOf(ps)
	fences := make([]int64, len(ps))
	for i, p := range ps {
		fences[i] = taken[p].fence
	}
	tag, err := conn.Exec(ctx, `select from tailrace."position" p join unnest($2::text[], $3::int[], $4::bigint[]) v(topic, num, fence)
		on p.topic = v.topic and p."partition" = v.num and p.fence = v.fence where p.sink = $1 order by p.topic, p."partition" for update of p`,
		sink, topics, numbers, fences)
	if err != nil {
		return fmt.Errorf("lock the positions: %w", err)
	}
	if tag.RowsAffected() != int64(len(ps)) {
		return sinks.ErrFenced
	}
	return nil
}
