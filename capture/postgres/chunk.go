package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

var _ capture.Chunker = (*chunker)(nil)

// chunker reads tables in chunks, see capture.Chunker. It has as many connections as there
// were calls at the same time.
type chunker struct {
	src     *Source
	catalog catalog // for descriptions, which nobody knows when they are asked for

	mu     sync.Mutex
	idle   []*chunkConn
	closed bool
}

// Chunker returns what reads tables in chunks beside Run. It connects when it is used, and
// must be closed.
func (s *Source) Chunker(context.Context) (capture.Chunker, error) {
	c := &chunker{src: s}
	c.catalog.cfg = &s.cfg
	return c, nil
}

// chunkSettings make the planner go along the key's index: the costs that are forbidden
// are those of reading and sorting the whole table for one chunk. A lock that is not
// granted soon is waited for outside of a transaction.
var chunkSettings = map[string]string{
	"enable_seqscan":                  "off",
	"enable_bitmapscan":               "off",
	"enable_sort":                     "off",
	"max_parallel_workers_per_gather": "0",
	"jit":                             "off",
	"row_security":                    "off",
	"lock_timeout":                    "3s",
	"statement_timeout":               "30s",
	"default_transaction_read_only":   "on",

	"idle_in_transaction_session_timeout": "60s",
}

// chunkConn is a connection that reads chunks, with what it knows of tables. It serves one
// call at a time.
type chunkConn struct {
	src     *Source
	sql     *pgx.Conn
	version int // server_version_num
	pages   walPages
	rows    rowWriter
	tables  map[tableName]*chunkTable
}

// with calls f with a connection.
func (c *chunker) with(ctx context.Context, f func(*chunkConn) error) error {
	conn, err := c.take(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(conn), c.give(conn))
}

func (c *chunker) take(ctx context.Context) (*chunkConn, error) {
	c.mu.Lock()
	n := len(c.idle)
	if c.closed {
		c.mu.Unlock()
		return nil, errors.New("the reader of chunks is closed")
	}
	if n > 0 {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return conn, nil
	}
	c.mu.Unlock()
	conn := &chunkConn{src: c.src, tables: make(map[tableName]*chunkTable)}
	return conn, conn.open(ctx)
}

// give keeps a connection for the next call, if it is still good.
func (c *chunker) give(conn *chunkConn) error {
	conn.rows.shrink()
	good := conn.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	if good && !c.closed {
		c.idle = append(c.idle, conn)
		return nil
	}
	return conn.close()
}

// Close gives up the connections; those in use are given up when their calls return.
func (c *chunker) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	errs := []error{c.catalog.close()}
	for _, conn := range c.idle {
		errs = append(errs, conn.close())
	}
	c.idle = nil
	return errors.Join(errs...)
}

// open connects, also in place of a connection that was cut off.
func (c *chunkConn) open(ctx context.Context) error {
	sql, err := c.src.cfg.connectWith(ctx, chunkSettings)
	if err != nil {
		return err
	}
	c.sql = sql
	const query = `SELECT current_setting('server_version_num')::int,
		(SELECT setting::int8 FROM pg_settings WHERE name = 'wal_block_size'),
		(SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size')`
	_, err = sql.PgConn().Exec(ctx, noTransactionTimeout).ReadAll()
	if err == nil {
		err = sql.QueryRow(ctx, query).Scan(&c.version, &c.pages.page, &c.pages.segment)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("read the server's settings: %w", err), c.close())
	}
	c.rows.source = schemas.NewSourceWriter(schemas.SourceConfig{Version: c.src.cfg.Version,
		Connector: connector, Name: c.src.cfg.Prefix, Database: sql.Config().Database})
	return nil
}

// close waits until the server, too, has ended what it was doing.
func (c *chunkConn) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	err := c.sql.Close(ctx)
	<-c.sql.PgConn().CleanupDone()
	if err != nil {
		return fmt.Errorf("close a connection that reads chunks: %w", err)
	}
	return nil
}

// end ends a transaction that is open, and says whether the connection can be used again.
func (c *chunkConn) end() bool {
	if c.sql.IsClosed() {
		return false
	}
	if c.sql.PgConn().TxStatus() == txIdle {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	_, err := c.exec(ctx, "ROLLBACK")
	return err == nil
}

// txIdle is ReadyForQuery's status outside of transactions.
const txIdle = 'I'

// exec sends statements in one message and returns their results.
func (c *chunkConn) exec(ctx context.Context, statements string) ([]*pgconn.Result, error) {
	return c.sql.PgConn().Exec(ctx, statements).ReadAll()
}

// values returns the texts of the one row that a result must have.
func values(r *pgconn.Result) ([]string, error) {
	if len(r.Rows) != 1 {
		return nil, fmt.Errorf("%d rows instead of one", len(r.Rows))
	}
	texts := make([]string, len(r.Rows[0]))
	for i, b := range r.Rows[0] {
		texts[i] = string(b)
	}
	return texts, nil
}

// runningHere lists the transactions in progress, by their 32-bit ids, but for those of other
// databases, which the log never shows. A snapshot alone does not: its xmax is behind the last
// transaction that has ended, and those in progress from there on are not among its xip. Where
// commits wait for a standby that can be all of them. Source: GetSnapshotData in PostgreSQL's
// storage/ipc/procarray.c.
const runningHere = `SELECT coalesce(array_agg(x.xid::text), '{}') FROM (
		SELECT s::xid AS xid FROM pg_snapshot_xip(pg_current_snapshot()) s
		UNION SELECT backend_xid FROM pg_stat_activity WHERE backend_xid IS NOT NULL
		UNION SELECT transaction FROM pg_prepared_xacts
	) x
	WHERE NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.backend_xid = x.xid AND a.datname <> current_database())
	AND NOT EXISTS (SELECT FROM pg_prepared_xacts p WHERE p.transaction = x.xid AND p.database <> current_database())`

func (c *chunkConn) running(ctx context.Context) (xids []uint64, err error) {
	var texts []string
	if err := c.sql.QueryRow(ctx, runningHere).Scan(&texts); err != nil {
		return nil, fmt.Errorf("list running transactions: %w", err)
	}
	for _, t := range texts {
		x, err := strconv.ParseUint(t, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("list running transactions: %w", err)
		}
		xids = append(xids, x)
	}
	return xids, nil
}

func (c *chunkConn) inRecovery(ctx context.Context) (standby bool, err error) {
	if err := c.sql.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
		return false, fmt.Errorf("ask whether the server is a standby: %w", err)
	}
	return standby, nil
}

// Running returns the ids of the transactions in progress as the log has them, 32 bits: on
// a primary a commit is logged before readers see it. A standby's log is read only as far
// as it is replayed.
func (c *chunker) Running(ctx context.Context) (xids []uint64, err error) {
	err = c.with(ctx, func(conn *chunkConn) error {
		standby, err := conn.inRecovery(ctx)
		if err != nil || standby {
			return err
		}
		xids, err = conn.running(ctx)
		return err
	})
	return xids, err
}

const (
	runningPause = 50 * time.Millisecond // between looks at what still runs
	runningNote  = 5 * time.Second       // after which it is said whom we wait for
)

// waitForRunning waits until all transactions have ended that are in progress now. What
// they change before ALTER PUBLICATION is not in the log, and with servers before 14.18,
// 15.13, 16.9 and 17.5 not even what they change later.
func (c *chunkConn) waitForRunning(ctx context.Context, t tableName) error {
	left, err := c.waiter(ctx)
	if err != nil {
		return err
	}
	note := time.Now().Add(runningNote)
	tick := time.NewTicker(runningPause)
	defer tick.Stop()
	for {
		xids, done, err := left(ctx)
		if err != nil || done {
			return err
		}
		if time.Now().After(note) {
			note = note.Add(time.Hour)
			who, err := c.holders(ctx, xids)
			if err != nil {
				return err
			}
			c.src.log.Info("a table that was added is read when the transactions that ran then have ended", "table", t.String(), "transactions", who)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// waiter returns what tells which of the transactions that are in progress now still are. A
// standby cannot list them: there it goes by the oldest of all.
func (c *chunkConn) waiter(ctx context.Context) (func(context.Context) (left []uint64, done bool, err error), error) {
	standby, err := c.inRecovery(ctx)
	if err != nil {
		return nil, err
	}
	if standby {
		first, err := c.snapshot(ctx)
		return func(ctx context.Context) ([]uint64, bool, error) {
			now, err := c.snapshot(ctx)
			return nil, err == nil && now.xmin >= first.xmax, err
		}, err
	}
	first, err := c.running(ctx)
	return func(ctx context.Context) ([]uint64, bool, error) {
		now, err := c.running(ctx)
		left := slices.DeleteFunc(now, func(x uint64) bool { return !slices.Contains(first, x) })
		return left, err == nil && len(left) == 0, err
	}, err
}

func (c *chunkConn) snapshot(ctx context.Context) (*snapshot, error) {
	var text string
	if err := c.sql.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text); err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	return parseSnapshot(text)
}

// holders says whose transactions these are.
func (c *chunkConn) holders(ctx context.Context, xids []uint64) ([]string, error) {
	const query = `SELECT format('%s of process %s (%s, user %s, since %s)', backend_xid, pid, application_name, usename, xact_start)
		FROM pg_stat_activity WHERE backend_xid::text::int8 = ANY ($1)
		UNION ALL SELECT format('%s prepared as %L (user %s, since %s)', transaction, gid, owner, prepared)
		FROM pg_prepared_xacts WHERE transaction::text::int8 = ANY ($1)`
	ids := make([]int64, len(xids))
	for i, x := range xids {
		ids[i] = int64(x)
	}
	rows, err := c.sql.Query(ctx, query, ids)
	if err != nil {
		return nil, fmt.Errorf("look whose transactions run: %w", err)
	}
	who, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look whose transactions run: %w", err)
	}
	return who, nil
}
