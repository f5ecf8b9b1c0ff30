package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/deploy/internal/judge"
)

// writer is one connection that changes rows in transactions. It belongs to one goroutine.
type writer struct {
	number int
	prefix string // of topics
	rng    *rand.Rand
	conn   *pgx.Conn
	log    *os.File
	wseq   int64
	keys   []*keys // of the tables with keys that are not hot
	saved  []keys  // as they were before the transaction
	inner  []keys  // as they were before the savepoint
	jver   int64   // version of the last row in the journal
}

func newWriter(ctx context.Context, number int, cfg *Config, logPath string) (*writer, error) {
	conn, err := pgx.Connect(ctx, cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("connect writer %d: %w", number, err)
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		conn.Close(ctx)
		return nil, err
	}
	w := &writer{number: number, prefix: cfg.Prefix, rng: rand.New(rand.NewPCG(cfg.Seed, uint64(number))), conn: conn, log: log}
	for i := range Tables {
		if t := &Tables[i]; len(t.Key) > 0 && !t.Hot {
			k := &keys{table: t}
			if cfg.Filled {
				k.fill()
			}
			w.keys = append(w.keys, k)
		}
	}
	return w, nil
}

func (w *writer) close() error {
	w.conn.Close(context.Background())
	return w.log.Close()
}

// transaction runs and logs one source transaction and returns its number of changes, 0
// if it was rolled back. An error is the harness's: the log could not be written, or the
// database is gone.
func (w *writer) transaction(ctx context.Context) (int, error) {
	w.wseq++
	w.saved = snapshot(w.saved, w.keys)
	tx := judge.Transaction{Outcome: judge.OK}
	err := w.statements(ctx, &tx)
	switch {
	case retryable(err), err == nil && w.rng.IntN(30) == 0:
		tx.Outcome = judge.Failed
		_, err = w.conn.Exec(ctx, "ROLLBACK")
	case err == nil:
		if _, err = w.conn.Exec(ctx, "COMMIT"); err != nil {
			tx.Outcome = judge.Unknown
			err = errors.Join(err, w.write(&tx))
		}
	}
	if err != nil {
		return 0, fmt.Errorf("writer %d: %w", w.number, err)
	}
	if tx.Outcome == judge.Failed {
		restore(w.keys, w.saved)
		return 0, w.write(&tx)
	}
	return len(tx.Changes), w.write(&tx)
}

// retryable says whether the transaction failed for a reason that lies in the others
// (deadlock, serialisation).
func retryable(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && strings.HasPrefix(e.Code, "40")
}

// write appends tx to the log and syncs it.
func (w *writer) write(tx *judge.Transaction) error {
	line, err := json.Marshal(tx)
	if err != nil {
		return err
	}
	if _, err := w.log.Write(append(line, '\n')); err != nil {
		return err
	}
	return w.log.Sync()
}

// statements begins a transaction and runs between one and sixteen changes; now and then
// some of them behind a savepoint that is rolled back.
func (w *writer) statements(ctx context.Context, tx *judge.Transaction) error {
	if _, err := w.conn.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	if err := w.conn.QueryRow(ctx, "SELECT pg_current_xact_id()::text::bigint").Scan(&tx.ID); err != nil {
		return err
	}
	if w.rng.IntN(400) == 0 {
		return w.bulk(ctx, tx)
	}
	hot := w.hotRows()
	var mirrored []int
	for n := 1 + w.rng.IntN(1+w.rng.IntN(16)); n > 0; n-- {
		if w.rng.IntN(40) == 0 {
			if err := w.undone(ctx); err != nil {
				return err
			}
		}
		if len(hot) > 0 && w.rng.IntN(3) == 0 {
			if err := w.hot(ctx, tx, "hot", hot[0]); err != nil {
				return err
			}
			mirrored, hot = append(mirrored, hot[0]), hot[1:]
			continue
		}
		if err := w.change(ctx, tx); err != nil {
			return err
		}
	}
	for _, id := range mirrored {
		if err := w.hot(ctx, tx, Mirror, id); err != nil {
			return err
		}
	}
	return nil
}

// hotRows draws hot rows to update, in ascending order, so that writers seldom deadlock.
func (w *writer) hotRows() []int {
	var out []int
	for range w.rng.IntN(3) {
		out = append(out, w.rng.IntN(HotRows))
	}
	slices.Sort(out)
	return out
}

// undone runs changes that a rollback to a savepoint takes back.
func (w *writer) undone(ctx context.Context) error {
	if _, err := w.conn.Exec(ctx, "SAVEPOINT s"); err != nil {
		return err
	}
	w.inner = snapshot(w.inner, w.keys)
	jver := w.jver
	var nowhere judge.Transaction
	for range 1 + w.rng.IntN(3) {
		if err := w.change(ctx, &nowhere); err != nil {
			return err
		}
	}
	restore(w.keys, w.inner)
	w.jver = jver
	_, err := w.conn.Exec(ctx, "ROLLBACK TO SAVEPOINT s")
	return err
}

// hot updates a row of a hot table, which all writers update; its version is the row's own
// count.
func (w *writer) hot(ctx context.Context, tx *judge.Transaction, table string, id int) error {
	var ver int64
	err := w.conn.QueryRow(ctx, "UPDATE "+table+" SET writer = $1, wseq = $2, ver = ver + 1, body = '"+table+"/' || id || '/' || (ver + 1) WHERE id = $3 RETURNING ver", w.number, w.wseq, id).Scan(&ver)
	if err != nil {
		return err
	}
	tx.Changes = append(tx.Changes, judge.Change{Topic: w.topic(table), Op: "update", Key: fmt.Sprint(id), Ver: ver})
	return nil
}

func (w *writer) topic(table string) string { return w.prefix + ".public." + table }

// change runs one change of the writer's own rows.
func (w *writer) change(ctx context.Context, tx *judge.Transaction) error {
	choice := w.rng.IntN(len(w.keys) + 1)
	if choice == len(w.keys) {
		return w.note(ctx, tx)
	}
	k := w.keys[choice]
	kind := w.rng.IntN(10)
	i, ok := k.draw(w.rng, kind >= 4)
	if !ok {
		kind = 0
		if i, ok = k.draw(w.rng, false); !ok {
			kind = 9
			i, _ = k.draw(w.rng, true)
		}
	}
	switch {
	case kind < 4:
		return w.insert(ctx, tx, k, i)
	case kind == 4:
		return w.remove(ctx, tx, k, i)
	case kind == 5:
		if to, ok := k.draw(w.rng, false); ok {
			return w.rekey(ctx, tx, k, i, to)
		}
	}
	return w.update(ctx, tx, k, i)
}

// note inserts a row into the table without a key.
func (w *writer) note(ctx context.Context, tx *judge.Transaction) error {
	w.jver++
	ver := w.jver*100 + int64(w.number)
	_, err := w.conn.Exec(ctx, "INSERT INTO journal VALUES ($1, $2, $3, $4)", w.number, w.wseq, ver, Body("journal", "", ver))
	tx.Changes = append(tx.Changes, judge.Change{Topic: w.topic("journal"), Op: "insert", Ver: ver})
	return err
}

// bulk inserts many long rows into the table without a key.
func (w *writer) bulk(ctx context.Context, tx *judge.Transaction) error {
	first := bulkVersion + w.wseq*100_000 + int64(w.number)*10_000
	_, err := w.conn.Exec(ctx, `INSERT INTO journal SELECT $1::int, $2::bigint, v, 'journal//' || v || repeat('.', $5::int)
		FROM generate_series($3::bigint, $4::bigint) v`, w.number, w.wseq, first, first+bulkRows-1, bulkPadding)
	for i := range int64(bulkRows) {
		tx.Changes = append(tx.Changes, judge.Change{Topic: w.topic("journal"), Op: "insert", Ver: first + i})
	}
	return err
}

func (w *writer) insert(ctx context.Context, tx *judge.Transaction, k *keys, i int) error {
	k.live[i] = true
	k.ver[i]++
	key := k.values(w.number, i)
	args := append(key[:len(key):len(key)], w.number, w.wseq, k.ver[i], Body(k.table.Name, KeyText(key), k.ver[i]))
	if k.table.Note {
		args = append(args, Note(KeyText(key), k.ver[i]))
	}
	places := make([]string, len(args))
	for j := range places {
		places[j] = fmt.Sprintf("$%d", j+1)
	}
	_, err := w.conn.Exec(ctx, "INSERT INTO "+k.table.Name+" VALUES ("+strings.Join(places, ", ")+")", args...)
	tx.Changes = append(tx.Changes, judge.Change{Topic: w.topic(k.table.Name), Op: "insert", Key: KeyText(key), Ver: k.ver[i]})
	return err
}

func (w *writer) update(ctx context.Context, tx *judge.Transaction, k *keys, i int) error {
	k.ver[i]++
	key := k.values(w.number, i)
	tx.Changes = append(tx.Changes, judge.Change{Topic: w.topic(k.table.Name), Op: "update", Key: KeyText(key), Ver: k.ver[i]})
	return w.one(ctx, "UPDATE "+k.table.Name+" SET writer = $1, wseq = $2, ver = $3, body = $4 WHERE "+k.where(5),
		append([]any{w.number, w.wseq, k.ver[i], Body(k.table.Name, KeyText(key), k.ver[i])}, key...)...)
}

func (w *writer) remove(ctx context.Context, tx *judge.Transaction, k *keys, i int) error {
	k.live[i] = false
	k.ver[i]++
	key := k.values(w.number, i)
	tx.Changes = append(tx.Changes, judge.Change{Topic: w.topic(k.table.Name), Op: "delete", Key: KeyText(key), Ver: k.ver[i]})
	return w.one(ctx, "DELETE FROM "+k.table.Name+" WHERE "+k.where(1), key...)
}

// rekey changes a row's key from the i-th to the j-th.
func (w *writer) rekey(ctx context.Context, tx *judge.Transaction, k *keys, i, j int) error {
	k.live[i], k.live[j] = false, true
	k.ver[i]++
	k.ver[j]++
	from, to := k.values(w.number, i), k.values(w.number, j)
	tx.Changes = append(tx.Changes, judge.Change{Topic: w.topic(k.table.Name), Op: "rekey",
		Key: KeyText(from), Ver: k.ver[i], NewKey: KeyText(to), NewVer: k.ver[j]})
	sets := []string{"writer = $1", "wseq = $2", "ver = $3", "body = $4"}
	for c, column := range k.table.Key {
		sets = append(sets, fmt.Sprintf("%s = $%d", column.Name, 5+c))
	}
	args := append([]any{w.number, w.wseq, k.ver[j], Body(k.table.Name, KeyText(to), k.ver[j])}, to...)
	return w.one(ctx, "UPDATE "+k.table.Name+" SET "+strings.Join(sets, ", ")+" WHERE "+k.where(len(args)+1), append(args, from...)...)
}

// where compares the key with the parameters from number first on.
func (k *keys) where(first int) string {
	parts := make([]string, len(k.table.Key))
	for i, c := range k.table.Key {
		parts[i] = fmt.Sprintf("%s = $%d", c.Name, first+i)
	}
	return strings.Join(parts, " AND ")
}

// one runs a statement that must touch one row: else the writer has lost track of its keys
// and everything that it logs would be wrong.
func (w *writer) one(ctx context.Context, sql string, args ...any) error {
	tag, err := w.conn.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() != 1 {
		return fmt.Errorf("%q touched %d rows, not 1", sql, tag.RowsAffected())
	}
	return err
}

func snapshot(to []keys, from []*keys) []keys {
	to = to[:0]
	for _, k := range from {
		to = append(to, *k)
	}
	return to
}

func restore(to []*keys, from []keys) {
	for i, k := range to {
		*k = from[i]
	}
}

// think waits as long as the pace asks for after a transaction of so many changes: on
// average changes/rate seconds, spread from nothing to twice that, so that there are
// bursts and pauses.
func (w *writer) think(ctx context.Context, changes int, rate float64) error {
	mean := float64(max(changes, 1)) / rate * float64(time.Second)
	t := time.NewTimer(time.Duration(w.rng.Float64() * 2 * mean))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
