package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The workload: writers, and how long each rests after a transaction.
const (
	writers = 3
	rest    = 12 * time.Millisecond
	kept    = 8 // of the last transactions, for the view
)

// kind is what a statement does to rows.
type kind int

const (
	insert kind = iota
	update
	remove
	rekey // an update of a primary key
	kinds
)

// counts are rows by kind, and transactions.
type counts struct {
	rows                          [kinds]int64
	transactions, multiTable, ddl int64
}

// workload is what happens in the shop. Its methods may be called from any goroutine.
type workload struct {
	address string
	wide    atomic.Bool // orders has the column channel

	mu     sync.Mutex
	counts counts
	last   []string
}

// visit is one transaction under way.
type visit struct {
	tx     pgx.Tx
	counts counts
	tables map[string]bool
	wide   bool
}

// do runs a statement on a table and counts its rows.
func (v *visit) do(ctx context.Context, k kind, table, sql string, args ...any) error {
	tag, err := v.tx.Exec(ctx, sql, args...)
	if err != nil {
		return err
	}
	v.counts.rows[k] += tag.RowsAffected()
	if tag.RowsAffected() > 0 {
		v.tables[table] = true
	}
	return nil
}

// steps are what can happen in the shop, out of 100.
var steps = []struct {
	share int
	run   func(context.Context, *visit) (string, error)
}{
	{50, checkout}, {16, cancel}, {10, reprice}, {8, restock}, {4, renumber}, {6, register}, {6, forget},
}

// run works in the shop until ctx ends (nil) or something fails. alter is when the table
// orders gets a column.
func (w *workload) run(ctx context.Context, alter time.Duration) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make(chan error, writers+1)
	var all sync.WaitGroup
	start := func(part func() error) {
		all.Go(func() {
			if err := part(); err != nil && ctx.Err() == nil {
				errs <- err
				stop()
			}
		})
	}
	for range writers {
		start(func() error { return w.write(ctx) })
	}
	start(func() error { return w.alter(ctx, alter) })
	all.Wait()
	close(errs)
	return <-errs
}

// write is one writer.
func (w *workload) write(ctx context.Context) error {
	conn, err := connect(ctx, w.address)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	tick := time.NewTicker(rest)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// A transaction that has begun is completed: only then is it known whether it counts.
		if err := w.step(context.WithoutCancel(ctx), conn); err != nil && !lostRace(err) {
			return fmt.Errorf("work in the shop: %w", err)
		}
	}
}

// lostRace says that two writers met, which the database has settled.
func lostRace(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40001", "40P01", "23503", "23505": // serialization, deadlock, foreign key, unique
		return true
	}
	return false
}

// step is one transaction.
func (w *workload) step(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	v := &visit{tx: tx, tables: map[string]bool{}, wide: w.wide.Load()}
	n := rand.IntN(100)
	for _, s := range steps {
		if n -= s.share; n >= 0 {
			continue
		}
		note, err := s.run(ctx, v)
		if err != nil {
			return errors.Join(err, tx.Rollback(ctx))
		}
		if err := tx.Commit(ctx); err != nil {
			return err
		}
		w.add(v, note)
		break
	}
	return nil
}

// add counts a committed transaction.
func (w *workload) add(v *visit, note string) {
	if len(v.tables) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, n := range v.counts.rows {
		w.counts.rows[k] += n
	}
	w.counts.transactions++
	if len(v.tables) > 1 {
		w.counts.multiTable++
	}
	w.note(note)
}

// note keeps the last transactions; the lock is held.
func (w *workload) note(text string) {
	w.last = append(w.last, time.Now().Format("15:04:05.000  ")+text)
	if len(w.last) > kept {
		w.last = w.last[1:]
	}
}

// seen returns what has happened so far.
func (w *workload) seen() (counts, []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts, append([]string(nil), w.last...)
}

// alter adds a column to orders after a while, in the midst of the work.
func (w *workload) alter(ctx context.Context, after time.Duration) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(after):
	}
	conn, err := connect(ctx, w.address)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	const sql = "ALTER TABLE orders ADD COLUMN channel text"
	if _, err := conn.Exec(context.WithoutCancel(ctx), sql); err != nil {
		return err
	}
	w.wide.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.ddl++
	w.note(sql)
	return nil
}

// end commits the last change of all, by which the target's side is known to be complete.
func (w *workload) end(ctx context.Context) error {
	conn, err := connect(ctx, w.address)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if _, err := conn.Exec(ctx, "INSERT INTO closings VALUES ($1, now())", lastClosing); err != nil {
		return fmt.Errorf("close the shop: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.rows[insert]++
	w.counts.transactions++
	return nil
}

// lastClosing is the key of the row that end writes.
const lastClosing = 2
