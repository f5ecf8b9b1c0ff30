package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/capture/backfill"
)

const (
	smallRows    = 50_000 // a table of so few is one range
	smallBlocks  = 500    // likewise
	sampleBlocks = 250    // that are read to find out how keys are spread
)

// Plan looks at a table before its first chunk, see capture.Chunker.
func (c *chunker) Plan(ctx context.Context, r *capture.ChunkTable) (p *capture.ChunkPlan, err error) {
	name := tableName{r.Namespace, r.Name}
	err = c.with(ctx, func(conn *chunkConn) error {
		if r.Added {
			if err := conn.waitForRunning(ctx, name); err != nil {
				return err
			}
		}
		p, err = conn.plan(ctx, name, r)
		return tableError(name, err)
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (c *chunkConn) plan(ctx context.Context, name tableName, r *capture.ChunkTable) (*capture.ChunkPlan, error) {
	if _, err := c.exec(ctx, lockSQL(name, nil)); err != nil {
		return nil, c.lockError(name, err)
	}
	t, err := c.describe(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := t.checkWhere(ctx, c, r.Where); err != nil {
		return nil, err
	}
	all := backfill.Range{}
	if all.After, err = t.checkKey(ctx, c, "from", r.After); err != nil {
		return nil, err
	}
	if all.To, err = t.checkKey(ctx, c, "to", r.To); err != nil {
		return nil, err
	}
	p := &capture.ChunkPlan{Identity: strconv.FormatUint(uint64(t.oid), 10), Key: t.keyNames(), Estimate: t.estimate}
	p.Ranges, err = t.split(ctx, c, all, r.Ranges)
	return p, err
}

// lockError classifies why a table cannot be looked at.
func (c *chunkConn) lockError(name tableName, err error) error {
	switch sqlState(err) {
	case stateUndefinedTable, stateUndefinedSchema:
		return noTable(name)
	case stateNoPrivilege:
		user := quoteIdent(c.src.cfg.user())
		return &Error{fmt.Errorf("read table %s: %w", name, err), fmt.Sprintf("as its owner: GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %s; and if it has row-level security, as a superuser: ALTER ROLE %s BYPASSRLS",
			quoteIdent(name.schema), user, name.quoted(), user, user), true, codeEnvironment}
	case stateWrongObject:
		return misconfigured("views, sequences and indexes have no changes in the log: name the tables under them", "%s is no table", name)
	}
	return err
}

const hintWhere = "write one SQL condition over the table's columns, as after WHERE; what is not in pg_catalog needs its schema"

// checkWhere sees that a condition is one, and nothing more: it must do as a condition and
// as a value. By the extended protocol it can be no second statement.
func (t *chunkTable) checkWhere(ctx context.Context, c *chunkConn, condition string) error {
	if condition == "" {
		return nil
	}
	if strings.ContainsRune(condition, 0) {
		return misconfigured(hintWhere, "the condition for table %s has a NUL", t)
	}
	for _, query := range []string{
		"SELECT 1 FROM " + t.from() + " WHERE (" + condition + "\n) LIMIT 0",
		"SELECT (" + condition + "\n) FROM " + t.from() + " LIMIT 0",
	} {
		d, err := c.sql.PgConn().Prepare(ctx, "", query, nil)
		if err != nil {
			var pg *pgconn.PgError
			if errors.As(err, &pg) && isOfRequest(pg.Code) {
				return &Error{fmt.Errorf("read the condition for table %s: %w", t, err), hintWhere, true, codeConfiguration}
			}
			return err
		}
		if len(d.ParamOIDs) > 0 {
			return misconfigured(hintWhere, "the condition for table %s has parameters", t)
		}
	}
	return nil
}

// checkKey returns a key as the database writes it.
func (t *chunkTable) checkKey(ctx context.Context, c *chunkConn, which string, key []string) ([]string, error) {
	if key == nil {
		return nil, nil
	}
	hint := fmt.Sprintf("give a value for each of (%s), as PostgreSQL writes it", strings.Join(t.keyNames(), ", "))
	if len(key) != len(t.key) {
		return nil, misconfigured(hint, "the key of table %s has %d columns, the %s-key %d", t, len(t.key), which, len(key))
	}
	literals := make([]string, len(key))
	for i, text := range key {
		if strings.ContainsRune(text, 0) {
			return nil, misconfigured(hint, "the %s-key for table %s has a NUL", which, t)
		}
		literals[i] = t.key[i].literal(text)
	}
	results, err := c.exec(ctx, "SELECT "+strings.Join(literals, ", "))
	if err != nil {
		if isOfRequest(sqlState(err)) {
			return nil, &Error{fmt.Errorf("read the %s-key for table %s: %w", which, t, err), hint, true, codeConfiguration}
		}
		return nil, err
	}
	return values(results[0])
}

// isOfRequest says whether a SQLSTATE tells of what was asked, or of the rows that it was
// asked of: asking again would lead to it again.
func isOfRequest(state string) bool {
	if len(state) != 5 {
		return false
	}
	switch state[:2] {
	case "0A", "21", "22", "2F", "38", "39", "42", "44", "P0":
		return true
	}
	return state == stateReadOnly // the condition would write
}

// split returns n ranges of about the same size, or fewer.
func (t *chunkTable) split(ctx context.Context, c *chunkConn, all backfill.Range, n int) ([]backfill.Range, error) {
	one := []backfill.Range{all}
	if n < 2 || t.estimate > 0 && t.estimate < smallRows {
		return one, nil
	}
	blocks, err := t.blocks(ctx, c)
	if err != nil || blocks < smallBlocks {
		return one, err
	}
	sample, err := t.sample(ctx, c, all, sampleBlocks/float64(blocks))
	if err != nil {
		return nil, err
	}
	return cutRange(all, sample, n), nil
}

// blocks returns the size of the table, of its partitions if it is partitioned.
func (t *chunkTable) blocks(ctx context.Context, c *chunkConn) (n int64, err error) {
	const query = `SELECT coalesce(sum(pg_relation_size(t.oid)), 0)::int8 / current_setting('block_size')::int
		FROM (SELECT $1::oid AS oid WHERE NOT $2 UNION ALL SELECT p.relid FROM pg_partition_tree($1::oid) p WHERE p.isleaf AND $2) t`
	if err := c.sql.QueryRow(ctx, query, t.oid, t.partitioned).Scan(&n); err != nil {
		return 0, fmt.Errorf("read the size of table %s: %w", t, err)
	}
	return n, nil
}

// sample returns the keys in some blocks of the table, in order.
func (t *chunkTable) sample(ctx context.Context, c *chunkConn, r backfill.Range, part float64) ([][]string, error) {
	percent := strconv.FormatFloat(min(100*part, 100), 'f', -1, 64)
	results, err := c.exec(ctx, "SELECT "+t.keyList()+" FROM "+t.from()+" TABLESAMPLE SYSTEM ("+percent+")"+where(t.within(r)...)+t.order())
	if err != nil {
		return nil, err
	}
	keys := make([][]string, len(results[0].Rows))
	for i, row := range results[0].Rows {
		for _, v := range row {
			keys[i] = append(keys[i], string(v))
		}
	}
	return keys, nil
}

// cutRange cuts a range into n by a sample of its keys in order.
func cutRange(all backfill.Range, sample [][]string, n int) []backfill.Range {
	n = min(n, len(sample))
	ranges := make([]backfill.Range, 0, n)
	after := all.After
	for i := 1; i < n; i++ {
		to := sample[i*len(sample)/n]
		ranges = append(ranges, backfill.Range{After: after, To: to})
		after = to
	}
	return append(ranges, backfill.Range{After: after, To: all.To})
}
