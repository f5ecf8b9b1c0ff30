package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
)

// errOrder says that a batch cannot be folded: it must be applied change by change.
var errOrder = errors.New("the changes must be applied one by one")

// applier writes one batch. In series it writes each change by itself, in the source's
// order; else it folds.
type applier struct {
	s         *Sink
	series    bool
	active    []*plan  // those with entries
	truncates []string // tables to be emptied, quoted, together: they may reference each other
	moved     map[*sinks.Change]bool
	at        *sinks.Change // in series: the one that is being written
}

// apply writes all changes.
func (a *applier) apply(ctx context.Context, changes []*sinks.Change) error {
	for i, c := range changes {
		a.at = c
		if err := a.add(ctx, changes, i); err != nil {
			return err
		}
		if a.series && c.Op != sinks.OpTruncate {
			if err := a.flush(ctx); err != nil {
				return err
			}
		}
	}
	return a.flush(ctx)
}

func (a *applier) add(ctx context.Context, changes []*sinks.Change, i int) error {
	c := changes[i]
	switch c.Op {
	case sinks.OpTruncate:
		return a.truncate(ctx, c)
	case sinks.OpCreate, sinks.OpRead, sinks.OpUpdate, sinks.OpDelete:
	default:
		return nil // a tombstone, a message
	}
	if len(a.truncates) > 0 {
		if err := a.flush(ctx); err != nil {
			return err
		}
	}
	p, err := a.s.planOf(ctx, c)
	if err != nil {
		return err
	}
	if err := a.activate(ctx, p); err != nil {
		return err
	}
	switch {
	case len(p.key) == 0:
		return a.keyless(ctx, p, c)
	case c.Op == sinks.OpDelete:
		if a.series && c.NewKey != nil {
			if done, err := a.move(ctx, p, changes, i); done || err != nil {
				return err
			}
		}
		return a.delete(p, c)
	}
	return a.put(p, c)
}

// activate makes p the plan by which its table is written; another version's rows go first.
func (a *applier) activate(ctx context.Context, p *plan) error {
	if slices.Contains(a.active, p) {
		return nil
	}
	if slices.ContainsFunc(a.active, func(q *plan) bool { return q.quoted == p.quoted }) {
		if err := a.flush(ctx); err != nil {
			return err
		}
	}
	p.fold.reset()
	a.active = append(a.active, p)
	return nil
}

// body returns a key without the frame.
func body(key []byte) []byte { return key[min(len(key), schemas.FrameSize):] }

// put notes what a row is now.
func (a *applier) put(p *plan, c *sinks.Change) error {
	if err := a.s.decode(c); err != nil {
		return err
	}
	after := a.s.rows.After()
	if !after.Present() {
		return stop("the record was not written by a capture", "write to %s: the change at offset %d of %s/%d has no row", p.quoted, c.Offset, c.Partition.Topic, c.Partition.Number)
	}
	from := len(p.text)
	text, partial, err := p.appendRow(p.text, &a.s.scratch, after)
	if p.text = text; err != nil {
		return err
	}
	e, found := p.entry(body(c.Key))
	if partial && (c.Op != sinks.OpUpdate && !a.moved[c] || found && e.line.empty()) {
		if !a.series {
			return errOrder
		}
		if c.Op != sinks.OpUpdate && !a.moved[c] {
			return ofRow("apply whole transactions (mode transactions), or ALTER TABLE … REPLICA IDENTITY FULL in the source",
				"write to %s: a row whose key was changed has unchanged columns, and its old row is not known", p.quoted)
		}
	}
	p.set(e, from, partial)
	return nil
}

// delete notes that a row is gone.
func (a *applier) delete(p *plan, c *sinks.Change) error {
	key, err := a.s.rows.Key(c)
	if err != nil {
		return undecodable(err)
	}
	from := len(p.text)
	text, err := p.appendKey(p.text, &a.s.scratch, key)
	if p.text = text; err != nil {
		return err
	}
	e, _ := p.entry(body(c.Key))
	e.deleted, e.line, e.partial, e.keyLine = true, span{}, false, span{from, len(p.text)}
	return nil
}

// move looks for the insert that a change of the key ends with. If that has columns
// unchanged, the target's row is given the new key, so that it keeps them.
func (a *applier) move(ctx context.Context, p *plan, changes []*sinks.Change, i int) (bool, error) {
	gone := changes[i]
	for _, c := range changes[i+1 : min(i+8, len(changes))] {
		if c.Op != sinks.OpCreate || c.OldKey == nil || c.Table != gone.Table || c.Mark.Pos != gone.Mark.Pos || c.Mark.Row != gone.Mark.Row+2 {
			continue
		}
		if err := a.s.decode(c); err != nil {
			return false, err
		}
		from := len(p.text)
		text, partial, err := p.appendRow(p.text, &a.s.scratch, a.s.rows.After())
		if p.text = text[:from]; err != nil || !partial {
			return false, err
		}
		if a.moved == nil {
			a.moved = make(map[*sinks.Change]bool)
		}
		a.moved[c] = true
		return true, a.changeKey(ctx, p, gone, c)
	}
	return false, nil
}

// changeKey gives the row of one change the key of another.
func (a *applier) changeKey(ctx context.Context, p *plan, old, now *sinks.Change) error {
	var values [][]byte
	for _, c := range []*sinks.Change{now, old} {
		key, err := a.s.rows.Key(c)
		if err != nil {
			return undecodable(err)
		}
		line, err := p.appendKey(nil, &a.s.scratch, key)
		if err != nil {
			return err
		}
		for rest := line[:len(line)-1]; rest != nil; {
			var field []byte
			field, rest = nextField(rest)
			values = append(values, unescape(field))
		}
	}
	w := writer{a.s, p}
	name, err := w.prepare(ctx, p.moveRow())
	if err == nil {
		batch := &pgconn.Batch{}
		batch.ExecPrepared(name, values, nil, nil)
		err = w.send(ctx, batch, true)
	}
	return writeError(a.s.user(), p.quoted, err)
}

// keyless writes a change of a table without a key: rows are added, and one that looks
// like the old one is deleted.
func (a *applier) keyless(ctx context.Context, p *plan, c *sinks.Change) error {
	if err := a.s.decode(c); err != nil {
		return err
	}
	if c.Op == sinks.OpUpdate || c.Op == sinks.OpDelete {
		before := a.s.rows.Before()
		if !before.Present() {
			return ofRow("ALTER TABLE … REPLICA IDENTITY FULL in the source, or give the table a key", "write to %s: a change of a table without a key does not say what the row was", p.quoted)
		}
		if err := a.flush(ctx); err != nil {
			return err
		}
		if err := a.deleteWhole(ctx, p, before); err != nil {
			return writeError(a.s.user(), p.quoted, err)
		}
		if err := a.activate(ctx, p); err != nil || c.Op == sinks.OpDelete {
			return err
		}
	}
	from := len(p.text)
	text, partial, err := p.appendRow(p.text, &a.s.scratch, a.s.rows.After())
	if p.text = text; err != nil {
		return err
	}
	if partial {
		return ofRow("ALTER TABLE … REPLICA IDENTITY FULL in the source", "write to %s: a row of a table without a key has unchanged columns", p.quoted)
	}
	p.entries = append(p.entries, entry{line: span{from, len(p.text)}})
	return nil
}

func (a *applier) deleteWhole(ctx context.Context, p *plan, before sinks.Row) error {
	w := writer{a.s, p}
	if err := w.makeStage(ctx, &p.stage, &p.dirty, p.all()); err != nil {
		return err
	}
	p.fold.reset()
	text, _, err := p.appendRow(p.text, &a.s.scratch, before)
	if p.text = text; err != nil {
		return err
	}
	if err := w.fill(ctx, p.stage, p.all(), []span{{0, len(p.text)}}); err != nil {
		return err
	}
	tag, err := w.exec(ctx, p.deleteWhole())
	p.fold.reset()
	if err != nil {
		return err
	}
	if tag.RowsAffected() != 1 {
		return ofRow("give the table a key in the source, then have the sink begin anew: `tailrace sink resolve --from-beginning`",
			"write to %s: the row that was changed is not in the target", p.quoted)
	}
	return nil
}

// truncate notes that a table is to be emptied, after all that came before.
func (a *applier) truncate(ctx context.Context, c *sinks.Change) error {
	if len(a.active) > 0 {
		if err := a.flush(ctx); err != nil {
			return err
		}
	}
	if err := a.s.rows.Decode(c); err != nil {
		return err
	}
	schema, name := a.s.place(string(a.s.rows.SourceSchema()), string(a.s.rows.SourceTable()))
	quoted := quoteTable(schema, name)
	if slices.Contains(a.truncates, quoted) {
		return nil
	}
	has, err := lookUp(ctx, a.s.conn, schema, name)
	if err != nil || has == nil {
		return err
	}
	a.truncates = append(a.truncates, quoted)
	return nil
}

// flush writes what was noted: TRUNCATEs, which nothing else was noted beside; or deletes,
// of referencing tables first, then rows, of referenced tables first.
func (a *applier) flush(ctx context.Context) error {
	if len(a.truncates) > 0 {
		sql := "truncate " + strings.Join(a.truncates, ", ")
		a.truncates = a.truncates[:0]
		if _, err := (writer{s: a.s}).exec(ctx, sql); err != nil {
			return writeError(a.s.user(), "", fmt.Errorf("%s: %w", sql, err))
		}
	}
	slices.SortStableFunc(a.active, func(p, q *plan) int { return cmp.Compare(p.rank, q.rank) })
	for _, p := range slices.Backward(a.active) {
		if err := (writer{a.s, p}).deletes(ctx); err != nil {
			return writeError(a.s.user(), p.quoted, err)
		}
	}
	for _, p := range a.active {
		if err := (writer{a.s, p}).upserts(ctx); err != nil {
			return writeError(a.s.user(), p.quoted, err)
		}
		sinks.Failpoint("sink-mid-batch")
	}
	for _, p := range a.active {
		p.fold.reset()
	}
	a.active = a.active[:0]
	return nil
}
