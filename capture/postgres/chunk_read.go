package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/capture/backfill"
	"github.com/tailrace/tailrace/schemas"
)

// One chunk is read in one transaction of READ COMMITTED, in which each statement has a
// snapshot of its own:
//
//	SELECT FROM t LIMIT 0   locks the table's definition as any SELECT does: from here on
//	                        nobody can rewrite or truncate what is going to be read
//	pg_current_snapshot()   the seen-set: what is visible to this statement is to the next
//	COPY (SELECT …)         the rows
//	the log's end           after all that the rows can come from
//
// On a standby the place up to which the log is replayed, read before the COPY, takes the
// place of the snapshot.

// Read reads one chunk, see capture.Chunker. Of a table with a row filter, or a backfill
// with a condition, r.Limit bounds the rows that are looked at, so that a condition that few
// rows meet makes no endless chunk; c.Last is the key of the last that was looked at.
func (c *chunker) Read(ctx context.Context, r *capture.ChunkRead, chunk *backfill.Chunk) (*capture.ChunkVersion, error) {
	var v *capture.ChunkVersion
	err := c.with(ctx, func(conn *chunkConn) error {
		for {
			read := chunkRead{chunkConn: conn, ask: r, chunk: chunk, name: tableName{r.Table.Namespace, r.Table.Name}}
			var err error
			if v, err = read.run(ctx); !errors.Is(err, errNoPlan) {
				return read.explain(err)
			}
			chunk.Rows.Reset()
			if err := read.plan(ctx, &c.catalog); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// errNoPlan says that the table is not as it was, or a row is not as the plan has it: a
// version must be asked for, with no transaction open.
var errNoPlan = errors.New("there is no plan for the table's rows yet")

// errFull ends a COPY of which no more is wanted.
var errFull = errors.New("the chunk is full")

// chunkRead is the reading of one chunk.
type chunkRead struct {
	*chunkConn
	ask   *capture.ChunkRead
	chunk *backfill.Chunk
	name  tableName
	table *chunkTable

	seen  backfill.Seen
	at    int64 // time of the transaction, microseconds since 1970
	begun time.Time
}

func (r *chunkRead) run(ctx context.Context) (*capture.ChunkVersion, error) {
	r.begun = time.Now()
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	bound, err := r.bound(ctx)
	if err != nil {
		return nil, err
	}
	w := chunkWriter{rows: &r.rows, table: r.table, into: r.chunk.Rows, max: r.ask.MaxBytes}
	if err := r.copy(ctx, &w, bound); err != nil {
		return nil, err
	}
	r.result(&w, bound)
	r.chunk.Seen = r.seen
	if r.chunk.End, err = r.finish(ctx); err != nil {
		return nil, err
	}
	return &capture.ChunkVersion{Route: r.table.rel.plan.route, Log: r.table.rel.logHash(), Took: time.Since(r.begun)}, nil
}

// lockSQL begins a transaction and locks a table's definition. It asks for no more rights
// than reading does. A partitioned table is locked with its partitions.
func lockSQL(name tableName, known *chunkTable) string {
	from := name.quoted()
	if known != nil {
		from = known.from()
	}
	return "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SELECT FROM " + from + " LIMIT 0; "
}

// begin opens the transaction and finds the table as it is.
//
// Whether the server is in recovery is asked before the snapshot is taken: one that a
// standby takes just before it is promoted would list nobody as running.
func (r *chunkRead) begin(ctx context.Context) error {
	known := r.tables[r.name]
	results, err := r.exec(ctx, lockSQL(r.name, known)+`SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn(), '0/0');
		SELECT pg_current_snapshot(), (extract(epoch FROM transaction_timestamp()) * 1000000)::int8, `+r.fingerprint()+`
		FROM pg_class c WHERE c.oid = `+quoteLiteral(r.name.quoted())+`::regclass`)
	if err != nil {
		return err
	}
	if len(results) != 4 {
		return fmt.Errorf("%d results instead of 4", len(results))
	}
	place, err := values(results[2])
	if err != nil {
		return err
	}
	state, err := values(results[3])
	if err != nil {
		return err
	}
	if r.at, err = strconv.ParseInt(state[1], 10, 64); err != nil {
		return err
	}
	if r.seen, err = seenSet(place[0] == "t", place[1], state[0]); err != nil {
		return err
	}
	if known == nil || known.fingerprint != state[2] {
		return r.learn(ctx, known, state[2])
	}
	r.table = known
	return nil
}

// seenSet makes the seen-set of a statement that begins now.
func seenSet(standby bool, lsn, text string) (backfill.Seen, error) {
	if !standby {
		return parseSnapshot(text)
	}
	at, err := pglogrepl.ParseLSN(lsn)
	return replayed(at), err
}

// learn reads how the table is now. What rows had shown of it holds on, if the log would
// describe it as before.
func (r *chunkRead) learn(ctx context.Context, known *chunkTable, fingerprint string) (err error) {
	delete(r.tables, r.name)
	if r.table, err = r.describe(ctx, r.name); err != nil {
		return err
	}
	r.table.fingerprint = fingerprint
	if known != nil && r.table.rel.same(known.rel) {
		r.table.rel.added = known.rel.added
	}
	r.tables[r.name] = r.table
	return nil
}

// check sees that the table is the one that the backfill is of.
func (r *chunkRead) check() error {
	const hint = "cancel the backfill, and start one of the table as it is now"
	plan := r.ask.Plan
	if oid := strconv.FormatUint(uint64(r.table.oid), 10); oid != plan.Identity {
		return stop(hint, "table %s is another one than when its backfill began", r.name)
	}
	if names := r.table.keyNames(); !slices.Equal(names, plan.Key) {
		return stop(hint, "the key of table %s was (%s) when its backfill began, and is (%s)",
			r.name, strings.Join(plan.Key, ", "), strings.Join(names, ", "))
	}
	if r.table.rel.plan == nil {
		return errNoPlan
	}
	return nil
}

// plan asks under what ids the table's rows are written, and makes the plan for them.
func (r *chunkRead) plan(ctx context.Context, catalog *catalog) error {
	if r.sql.IsClosed() {
		if err := r.open(ctx); err != nil {
			return err
		}
	} else if !r.end() {
		return fmt.Errorf("read table %s: the connection broke", r.name)
	}
	rel := r.table.rel
	asked := *rel // nobody else may look at what rows add to it
	asked.added = slices.Clone(rel.added)
	route, err := r.ask.Route(ctx, asked.version(catalog.describe))
	if err != nil {
		return err
	}
	p, err := compile(rel, route, r.src.cfg.Unrepresentable == UnrepresentableNull)
	if err != nil {
		return stop("", "make the plan of table %s: %w", r.name, err)
	}
	written := make([]string, len(route.Table.Key))
	for i, k := range route.Table.Key {
		written[i] = route.Table.Columns[k].Name
	}
	wanted := r.table.keyNames()
	slices.Sort(wanted)
	slices.Sort(written)
	if !slices.Equal(written, wanted) {
		return stop("the topics have the table as it was before its key was changed; a change of its columns or its replica identity makes a new version",
			"the rows of table %s are written with the key (%s), and it has the key (%s)", r.name, strings.Join(written, ", "), strings.Join(wanted, ", "))
	}
	rel.plan = p
	return nil
}

// bound finds the key up to which rows are looked at, where not all of them are wanted; nil:
// there are not so many.
func (r *chunkRead) bound(ctx context.Context) ([]string, error) {
	if len(r.table.chosen(r.ask.Table)) == 0 {
		return nil, nil
	}
	t := r.table
	results, err := r.exec(ctx, "SELECT "+t.keyList()+" FROM "+t.from()+where(t.within(r.ask.Range)...)+t.order()+
		fmt.Sprintf(" LIMIT 1 OFFSET %d", r.limit()-1))
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return nil, err
	}
	return values(results[0])
}

func (r *chunkRead) limit() int { return max(r.ask.Limit, 1) }

// copy reads the rows.
func (r *chunkRead) copy(ctx context.Context, w *chunkWriter, bound []string) error {
	t := r.table
	within := r.ask.Range
	if bound != nil {
		within.To = bound
	}
	chosen := t.chosen(r.ask.Table)
	query := t.columns() + " FROM " + t.from() + where(append(chosen, t.within(within)...)...) + t.order()
	if len(chosen) == 0 {
		query += fmt.Sprintf(" LIMIT %d", r.limit())
	}
	r.rows.source.SetTransaction(schemas.SourceTx{CommitMicros: r.at, Incremental: true})
	r.rows.now = time.Now().UnixMicro()
	_, err := r.sql.PgConn().CopyTo(ctx, w, "COPY ("+query+") TO STDOUT")
	switch {
	case errors.Is(err, errFull), errors.Is(err, errNoPlan):
		<-r.sql.PgConn().CleanupDone() // the server has ended the transaction
		if err := r.open(ctx); err != nil {
			return err
		}
		if w.full {
			return nil
		}
	case err == nil && len(w.rest) > 0:
		err = errCopyText
	}
	return err
}

// result says what was read.
func (r *chunkRead) result(w *chunkWriter, bound []string) {
	c := r.chunk
	c.Last = w.lastKey()
	switch {
	case w.full:
		c.Whole = false
	case len(r.table.chosen(r.ask.Table)) == 0:
		c.Whole = c.Rows.Len() < r.limit()
	default:
		c.Whole = bound == nil
		if bound != nil {
			c.Last = bound
		}
	}
}

// finish reads the log's end and ends the transaction.
func (r *chunkRead) finish(ctx context.Context) (backfill.Place, error) {
	results, err := r.exec(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END; COMMIT`)
	if err != nil {
		return backfill.Place{}, err
	}
	text, err := values(results[0])
	if err != nil {
		return backfill.Place{}, err
	}
	lsn, err := pglogrepl.ParseLSN(text[0])
	return backfill.Place{Offset: r.pages.end(uint64(lsn))}, err
}

// explain says of an error what it is about, and what can be done.
func (r *chunkRead) explain(err error) error { return tableError(r.name, err) }

// tableError classifies an error of reading a table. What does not come from the table or
// the request is transient: a lost connection, a lock that was not granted in time, a
// standby's conflict, a shutdown.
func tableError(name tableName, err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	state := sqlState(err)
	err = fmt.Errorf("read table %s: %w", name, withoutValues(err))
	switch {
	case state == stateUndefinedTable || state == stateUndefinedSchema:
		return &Error{err, "it was dropped or renamed, or is not readable to the user; if it is gone, cancel the backfill", true, codeRuntime}
	case state == stateNoPrivilege:
		return &Error{err, hintSelect, true, codeEnvironment}
	case state == stateUntranslatable:
		return &Error{err, hintUntranslatable, true, codeRuntime}
	case isOfRequest(state):
		return &Error{err, "the condition, or the row filter of the publication, cannot be computed for all rows", true, codeRuntime}
	case errors.Is(err, errCopyText):
		return &Error{err, "this is a server that this version does not know, or a fault of one of the two; nothing was skipped", true, codeRuntime}
	}
	return err
}

// chunkWriter takes what COPY sends and makes records of it. It lives for one COPY.
type chunkWriter struct {
	rows  *rowWriter
	table *chunkTable
	into  *backfill.Rows
	max   int // bytes of records

	rest []byte // of a row whose end has not come
	last []byte // the key of the last row, its values one after the other
	ends []int  // where each ends
	full bool
}

// Write takes p, which may end anywhere in a row.
func (w *chunkWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	rest := w.rest
	for {
		row, more, ok := cutRow(rest)
		if !ok {
			break
		}
		if err := w.row(row); err != nil {
			return 0, err
		}
		rest = more
	}
	w.rest = w.rest[:copy(w.rest, rest)]
	return len(p), nil
}

// row makes the record of one row.
func (w *chunkWriter) row(text []byte) error {
	if w.into.Len() > 0 && w.into.Bytes() >= w.max {
		w.full = true
		return errFull
	}
	rel := w.table.rel
	if err := splitCopy(text, rel.new); err != nil {
		return err
	}
	w.rows.msg = rowMessage{op: readRow, bytes: text, new: rel.new}
	if column, err := w.rows.encode(rel.plan, 0); err != nil {
		if err := w.rows.addTo(rel, column, err); err != nil {
			return err
		}
		rel.plan = nil
		return errNoPlan
	}
	w.into.Add(w.rows.key, w.rows.value)
	w.last, w.ends = w.last[:0], w.ends[:0]
	for _, k := range w.table.places {
		f := rel.new[k]
		if f.start < 0 {
			return stop("", "column %q of the key of table %s is null", rel.columns[k].name, w.table)
		}
		w.last = append(w.last, text[f.start:f.end]...)
		w.ends = append(w.ends, len(w.last))
	}
	return nil
}

// lastKey returns the key of the last row, nil if there was none.
func (w *chunkWriter) lastKey() []string {
	var key []string
	from := 0
	for _, to := range w.ends {
		key = append(key, string(w.last[from:to]))
		from = to
	}
	return key
}
