package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// The initial snapshot of tables without a key, which cannot be read in chunks: rows as they
// were at the slot's position, in the snapshot that the slot exported when it was made.
// Several connections read a table each, with COPY, and send blocks of rows; the goroutine
// that calls Snapshot splits them and writes them with the very plans that the log's rows
// have.

const (
	portionRows  = 10_000  // rows between two Commits
	portionBytes = 4 << 20 // of keys and values, likewise
	reportEvery  = 10 * time.Second
	waitAtMost   = 500 * time.Millisecond // without telling the Emitter
)

// Snapshot writes the rows of the publication's tables that have no key, and if anew is set
// a TRUNCATE of every table before that, see capture.Source. It can be called once after
// Prepare has made the slot for a snapshot.
func (s *Source) Snapshot(ctx context.Context, anew bool, out capture.Emitter) (err error) {
	s.mu.Lock()
	p := s.prepared
	s.mu.Unlock()
	if p == nil {
		return stop("", "read the snapshot: none was prepared")
	}
	ending := func(end func() error) {
		if endErr := end(); err == nil { // an error of the Emitter is returned as it is
			err = endErr
		}
	}
	defer func() { ending(s.endExport) }()
	if p.conn == nil {
		return s.emptySnapshot(ctx, p, anew, out)
	}
	n := s.cfg.SnapshotReaders
	if n == 0 {
		n = defaultSnapshotReaders
	}
	full := make(chan *block, n*blocksPerReader) // all that there are
	readers, err := s.openReaders(ctx, p.name, n, full)
	defer func() {
		for _, r := range readers {
			ending(r.close)
		}
	}()
	if err != nil {
		return err
	}
	tables, err := s.lockTables(ctx, readers[0])
	if err != nil {
		return err
	}
	w, err := s.newSnapshotWriter(ctx, readers[0].sql, p, out)
	if err != nil {
		return err
	}
	if err := w.truncate(ctx, anew, tables); err != nil {
		return err
	}
	tables = slices.DeleteFunc(tables, func(t *readTable) bool { return t.keyed })
	w.tables = len(tables)
	s.log.Info("snapshot of tables without a key begins", "tables", len(tables), "readers", len(readers), "position", lsnText(p.lsn))
	return w.readAll(ctx, readers, tables, full)
}

// emptySnapshot is the snapshot if all tables have a key: what is read of them later may
// follow rows of a snapshot that was interrupted.
func (s *Source) emptySnapshot(ctx context.Context, p *prepared, anew bool, out capture.Emitter) error {
	if !anew {
		return nil
	}
	sql, err := s.catalog.connect(ctx)
	if err != nil {
		return err
	}
	tables, err := s.tablesToRead(ctx, sql, tableName{})
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.keyless() {
			return fmt.Errorf("table %s lost its key just after the slot was made: the snapshot is taken anew", t)
		}
		if err := t.describeRead(ctx, sql); err != nil {
			return err
		}
	}
	w, err := s.newSnapshotWriter(ctx, sql, p, out)
	if err != nil {
		return err
	}
	if err := w.truncate(ctx, anew, tables); err != nil {
		return err
	}
	return w.endPortion(ctx)
}

// newSnapshotWriter returns what writes the rows that sql's transaction reads.
func (s *Source) newSnapshotWriter(ctx context.Context, sql *pgx.Conn, p *prepared, out capture.Emitter) (*snapshotWriter, error) {
	w := &snapshotWriter{stream: s.newRows(sql.Config().Database, out), lsn: p.lsn}
	err := sql.QueryRow(ctx, "SELECT (extract(epoch FROM transaction_timestamp()) * 1000000)::int8").Scan(&w.commitTime)
	if err != nil {
		return nil, fmt.Errorf("read the snapshot's time: %w", err)
	}
	return w, nil
}

func (s *Source) openReaders(ctx context.Context, name string, n int, full chan<- *block) (readers []*reader, err error) {
	for range n {
		r, err := s.openReader(ctx, name, full)
		if err != nil {
			return readers, err
		}
		readers = append(readers, r)
	}
	return readers, nil
}

// lockTables lists and describes the tables, and keeps their definitions as they are.
func (s *Source) lockTables(ctx context.Context, r *reader) ([]*readTable, error) {
	tables, err := s.tablesToRead(ctx, r.sql, tableName{})
	if err == nil {
		err = s.refuseUnreadable(tables)
	}
	if err != nil {
		return nil, err
	}
	note := time.AfterFunc(5*time.Second, func() {
		s.log.Info("the snapshot waits for locks on tables", "tables", len(tables))
	})
	defer note.Stop()
	for _, t := range tables {
		if err := t.describeRead(ctx, r.sql); err != nil {
			return nil, err
		}
		if err := r.lock(ctx, t); err != nil {
			return nil, err
		}
	}
	return tables, r.checkRewritten(ctx, tables)
}

// snapshotWriter writes blocks of rows to the Emitter.
type snapshotWriter struct {
	*stream
	lsn uint64 // the slot's position

	portion int // number of the portion that is open, or the last
	rows    int // in the portion
	bytes   int

	tables   int // to be read
	done     int
	total    int64 // rows
	active   []*readTable
	begun    time.Time
	reported time.Time
}

// readAll lets the readers read and writes what they send, until all is written or one fails.
func (w *snapshotWriter) readAll(ctx context.Context, readers []*reader, tables []*readTable, full <-chan *block) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan *readTable, len(tables))
	for _, t := range tables {
		work <- t
	}
	close(work)
	ended := make(chan struct{})
	var running sync.WaitGroup
	for _, r := range readers {
		running.Go(func() {
			for t := range work {
				if err := r.read(ctx, t); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	go func() {
		running.Wait()
		close(ended)
	}()
	err := w.write(ctx, full, ended)
	cancel(err)
	<-ended
	return err
}

// write takes blocks until the readers have ended. A reader's error is the context's cause.
func (w *snapshotWriter) write(ctx context.Context, full <-chan *block, ended <-chan struct{}) error {
	w.begun = time.Now()
	w.reported = w.begun
	tick := time.NewTicker(waitAtMost)
	defer tick.Stop()
	for {
		b, err := w.nextBlock(ctx, full, ended, tick.C)
		if err != nil {
			return err
		}
		if b == nil {
			break
		}
		if err := w.writeBlock(ctx, b); err != nil {
			return err
		}
		b.home <- b // it has room for all that came from there
		w.report()
	}
	if err := w.endPortion(ctx); err != nil {
		return err
	}
	w.src.log.Info("snapshot is read", "tables", w.done, "rows", w.total, "took", time.Since(w.begun).Round(time.Millisecond))
	return nil
}

// nextBlock returns the next block, nil when there is none any more.
func (w *snapshotWriter) nextBlock(ctx context.Context, full <-chan *block, ended <-chan struct{}, tick <-chan time.Time) (*block, error) {
	select {
	case b := <-full:
		return b, nil
	default:
	}
	for {
		w.out.Wait()
		var b *block
		var err error
		more := false
		select {
		case b = <-full:
		case <-ended:
			if err = context.Cause(ctx); err == nil && len(full) > 0 {
				b = <-full
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-tick:
			more = true
		}
		w.out.Resume()
		if !more || err != nil {
			return b, err
		}
		if err := w.endPortion(ctx); err != nil { // what has come so far need not wait
			return nil, err
		}
		w.report()
	}
}

// writeBlock writes the rows of a block.
func (w *snapshotWriter) writeBlock(ctx context.Context, b *block) error {
	w.now = time.Now().UnixMicro()
	t := b.table
	if b.first {
		w.active = append(w.active, t)
	}
	for rest := b.rows; len(rest) > 0; {
		row, more, ok := cutRow(rest)
		if !ok {
			return w.unreadable(t, errCopyText)
		}
		if err := w.writeRow(ctx, t, row); err != nil {
			return err
		}
		rest = more
	}
	w.shrink()
	if b.last {
		w.endTable(t)
	}
	return nil
}

// truncate writes a TRUNCATE of each table where rows of an interrupted snapshot may stand.
func (w *snapshotWriter) truncate(ctx context.Context, anew bool, tables []*readTable) error {
	if !anew {
		return nil
	}
	w.now = time.Now().UnixMicro()
	for _, t := range tables {
		if err := w.beginPortion(); err != nil {
			return err
		}
		if err := w.truncateOne(ctx, w.lsn, t.rel); err != nil {
			return err
		}
	}
	return nil
}

func (w *snapshotWriter) endTable(t *readTable) {
	for i, a := range w.active {
		if a == t {
			w.active = append(w.active[:i], w.active[i+1:]...)
			break
		}
	}
	w.done++
	w.src.log.Debug("table is read", "table", t.String(), "rows", t.rows)
}

// writeRow writes one row, in COPY's text.
func (w *snapshotWriter) writeRow(ctx context.Context, t *readTable, text []byte) error {
	if err := w.beginPortion(); err != nil {
		return err
	}
	rel := t.rel
	if rel.plan == nil {
		if err := w.describe(ctx, rel); err != nil {
			return err
		}
	}
	w.msg = rowMessage{op: readRow, bytes: text, new: rel.new}
	if err := splitCopy(text, rel.new); err != nil {
		return w.unreadable(t, err)
	}
	for {
		column, err := w.encode(rel.plan, w.lsn)
		if err == nil {
			break
		}
		if err := w.widen(ctx, rel, column, w.lsn, err); err != nil {
			return err
		}
	}
	if err := w.emit(ctx, rel.plan); err != nil {
		return err
	}
	t.rows++
	w.total++
	w.rows++
	w.bytes += len(w.key) + len(w.value)
	if w.rows >= portionRows || w.bytes >= portionBytes {
		return w.endPortion(ctx)
	}
	return nil
}

func (w *snapshotWriter) unreadable(t *readTable, err error) error {
	return stop("this is a server that this version does not know, or a fault of one of the two; nothing was skipped",
		"read table %s: %w", t, err)
}

// beginPortion opens a portion, if none is.
func (w *snapshotWriter) beginPortion() error {
	if w.open {
		return nil
	}
	w.portion++
	w.rows, w.bytes = 0, 0
	w.open, w.announced = true, true
	w.source.SetTransaction(schemas.SourceTx{CommitMicros: w.commitTime, Snapshot: true})
	w.txID = strconv.AppendUint(append(w.txID[:0], "snapshot:"...), w.lsn, 10)
	w.txID = strconv.AppendInt(append(w.txID, ':'), int64(w.portion), 10)
	return w.out.Begin(&capture.Tx{Pos: w.lsn - 1, ID: view(w.txID), CommitTime: w.commitTime, Read: true})
}

// endPortion ends the portion that is open.
func (w *snapshotWriter) endPortion(ctx context.Context) error {
	if !w.open {
		return nil
	}
	w.open = false
	return w.out.Commit(ctx, capture.Position{Offset: w.lsn})
}

// report logs how far the tables are that are being read.
func (w *snapshotWriter) report() {
	now := time.Now()
	if now.Sub(w.reported) < reportEvery {
		return
	}
	w.reported = now
	rate := float64(w.total) / now.Sub(w.begun).Seconds()
	for _, t := range w.active {
		w.src.log.Info("snapshot", append([]any{"table", t.String(), "rows", t.rows}, progressOf(t, w, rate)...)...)
	}
}

// progressOf says what of a table is left; the rate is that of all readers.
func progressOf(t *readTable, w *snapshotWriter, rate float64) []any {
	args := []any{slog.Int("tables_done", w.done), slog.Int("tables", w.tables), slog.Int64("rows_per_second", int64(rate))}
	if t.estimate <= t.rows || rate <= 0 {
		return args
	}
	left := float64(t.estimate-t.rows) / (rate / float64(max(1, len(w.active))))
	return append(args, slog.Int64("estimated", t.estimate), slog.Duration("eta", time.Duration(left*float64(time.Second)).Round(time.Second)))
}
