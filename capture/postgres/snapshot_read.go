package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const (
	// blockBytes is from what size on a block of rows goes to the goroutine that writes.
	blockBytes = 128 << 10
	// blocksPerReader bounds what is read ahead.
	blocksPerReader = 3
	// keptBlock is the largest buffer that is kept for the next block.
	keptBlock = 2 << 20
)

// block is a number of whole rows of one table in COPY's text format.
type block struct {
	table *readTable
	rows  []byte
	first bool // of its table; a table without rows has one too
	last  bool
	home  chan<- *block // of the reader that it goes back to
}

// prepared is the slot that was made for a snapshot, with the snapshot that it exported if
// there were tables without a key.
type prepared struct {
	lsn  uint64   // the slot's position
	conn *session // that made the slot, as long as which the exported snapshot lives; nil: there is none
	name string
}

// endExport gives up the snapshot; transactions that use it already keep it.
func (s *Source) endExport() error {
	s.mu.Lock()
	p := s.prepared
	s.prepared = nil
	s.mu.Unlock()
	if p == nil || p.conn == nil {
		return nil
	}
	return p.conn.terminate()
}

// noTransactionTimeout switches off a timeout that servers have since PostgreSQL 17.
const noTransactionTimeout = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'"

// reader reads tables, each as it was in the snapshot.
type reader struct {
	sql   *pgx.Conn
	empty chan *block // to be filled
	full  chan<- *block
}

// openReader opens a connection whose transaction sees the snapshot.
func (s *Source) openReader(ctx context.Context, snapshot string, full chan<- *block) (*reader, error) {
	sql, err := s.cfg.connectWith(ctx, map[string]string{"row_security": "off", "lock_timeout": "0"})
	if err != nil {
		return nil, err
	}
	r := &reader{sql: sql, full: full, empty: make(chan *block, blocksPerReader)}
	for range blocksPerReader {
		r.empty <- &block{}
	}
	for _, statement := range []string{noTransactionTimeout, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		"SET TRANSACTION SNAPSHOT " + quoteLiteral(snapshot)} {
		if _, err := sql.PgConn().Exec(ctx, statement).ReadAll(); err != nil {
			return nil, errors.Join(fmt.Errorf("begin to read the snapshot: %w", err), r.close())
		}
	}
	return r, nil
}

func (r *reader) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	err := r.sql.Close(ctx)
	<-r.sql.PgConn().CleanupDone() // a COPY that was cut off is cancelled in the background
	if err != nil {
		return fmt.Errorf("close a reader's connection: %w", err)
	}
	return nil
}

// lock keeps a table's definition as it is until the transaction ends. It asks for no
// more than the rights that reading the table needs.
func (r *reader) lock(ctx context.Context, t *readTable) error {
	if _, err := r.sql.PgConn().Exec(ctx, t.query()+" LIMIT 0").ReadAll(); err != nil {
		return t.readError(err)
	}
	return nil
}

// checkRewritten finds tables that were written anew between the making of the slot and
// their lock: to an older snapshot such a table is empty. A TRUNCATE looks the same.
func (r *reader) checkRewritten(ctx context.Context, tables []*readTable) error {
	const query = `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relfilenode <> 0
		AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)
		AND (c.oid = ANY ($1) OR EXISTS (SELECT FROM pg_partition_ancestors(c.oid) a WHERE a.relid::oid = ANY ($1))) LIMIT 1`
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.oid
	}
	var name string
	err := r.sql.QueryRow(ctx, query, oids).Scan(&name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look for rewritten tables: %w", err)
	}
	return fmt.Errorf("table %s was rewritten or truncated just after the snapshot: it is taken anew", name)
}

// read sends the rows of a table as blocks.
func (r *reader) read(ctx context.Context, t *readTable) error {
	w := blockWriter{ctx: ctx, reader: r, table: t, first: true}
	if err := w.next(); err != nil {
		return err
	}
	if _, err := r.sql.PgConn().CopyTo(ctx, &w, "COPY ("+t.query()+") TO STDOUT"); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return t.readError(err)
	}
	w.block.last = true
	return w.put(w.block)
}

func (t *readTable) readError(err error) error {
	state := sqlState(err)
	err = fmt.Errorf("read table %s: %w", t, withoutValues(err))
	switch state {
	case stateNoPrivilege:
		return &Error{err, hintSelect, true, codeEnvironment}
	case stateUntranslatable:
		return &Error{err, hintUntranslatable, true, codeRuntime}
	}
	return err
}

// blockWriter takes what COPY sends and gathers it into blocks. It lives for one COPY,
// whose context it is given, since an io.Writer is asked without one.
type blockWriter struct {
	ctx    context.Context
	reader *reader
	table  *readTable
	block  *block
	first  bool
}

// Write appends p, which may end anywhere in a row.
func (w *blockWriter) Write(p []byte) (int, error) {
	w.block.rows = append(w.block.rows, p...)
	if len(w.block.rows) < blockBytes {
		return len(p), nil
	}
	end := bytes.LastIndexByte(w.block.rows, '\n') + 1
	if end == 0 {
		return len(p), nil
	}
	full := w.block
	if err := w.next(); err != nil {
		return 0, err
	}
	w.block.rows = append(w.block.rows, full.rows[end:]...)
	full.rows = full.rows[:end]
	return len(p), w.put(full)
}

// next takes an empty block.
func (w *blockWriter) next() error {
	select {
	case b := <-w.reader.empty:
		if cap(b.rows) > keptBlock {
			b.rows = nil
		}
		*b = block{table: w.table, rows: b.rows[:0], first: w.first}
		w.block, w.first = b, false
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

func (w *blockWriter) put(b *block) error {
	b.home = w.reader.empty
	select {
	case w.reader.full <- b:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}
