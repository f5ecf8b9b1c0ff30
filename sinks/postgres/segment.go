package postgres

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
)

// bulkRows is from how many rows on COPY into a temporary table is faster than prepared
// statements sent together.
const bulkRows = 100

// segment is what is to be written to one plan's table.
type segment struct {
	fold
	stage    string // the temporary table with the plan's columns; empty: not made yet
	keyStage string // the one with the key's
	kept     bool   // stage was there before this transaction
	keyKept  bool   // keyStage
	dirty    bool   // stage has rows of this transaction
	keyDirty bool
	prepared map[string]string // statement text → name
}

// lines reads lines one after the other.
type lines struct {
	text  []byte
	spans []span
	rest  []byte
}

func (l *lines) Read(dst []byte) (n int, err error) {
	for n < len(dst) {
		if len(l.rest) == 0 {
			if len(l.spans) == 0 {
				break
			}
			l.rest = l.text[l.spans[0].from:l.spans[0].to]
			l.spans = l.spans[1:]
		}
		c := copy(dst[n:], l.rest)
		l.rest = l.rest[c:]
		n += c
	}
	if n == 0 && len(dst) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// writer sends a plan's statements.
type writer struct {
	s *Sink
	p *plan
}

func (w writer) pg() *pgconn.PgConn { return w.s.conn.PgConn() }

func (w writer) exec(ctx context.Context, sql string) (pgconn.CommandTag, error) {
	results, err := w.pg().Exec(ctx, sql).ReadAll()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	return results[len(results)-1].CommandTag, nil
}

// makeStage makes a temporary table with columns of the target's types, or empties it.
func (w writer) makeStage(ctx context.Context, name *string, dirty *bool, columns []int) error {
	if *name != "" {
		if !*dirty {
			*dirty = true
			return nil
		}
		_, err := w.exec(ctx, "truncate "+*name)
		return err
	}
	w.s.stages++
	stage := fmt.Sprintf("pg_temp.tailrace_%d", w.s.stages)
	_, err := w.exec(ctx, fmt.Sprintf("create temporary table tailrace_%d on commit delete rows as select %s from %s with no data", w.s.stages, w.p.names(columns), w.p.quoted))
	if err != nil {
		return fmt.Errorf("make a temporary table: %w", err)
	}
	*name, *dirty = stage, true
	return nil
}

// fill copies lines into a temporary table.
func (w writer) fill(ctx context.Context, stage string, columns []int, spans []span) error {
	_, err := w.pg().CopyFrom(ctx, &lines{text: w.p.text, spans: spans}, fmt.Sprintf("copy %s (%s) from stdin", stage, w.p.names(columns)))
	return err
}

// deletes deletes the rows of keys that are gone.
func (w writer) deletes(ctx context.Context) error {
	p, spans := w.p, w.s.spans[:0]
	for i := range p.entries {
		if e := &p.entries[i]; e.deleted && e.line.empty() {
			spans = append(spans, e.keyLine)
		}
	}
	w.s.spans = spans
	if len(spans) == 0 {
		return nil
	}
	if len(spans) < bulkRows {
		return w.rows(ctx, p.deleteRow(), spans, nil)
	}
	if err := w.makeStage(ctx, &p.keyStage, &p.keyDirty, p.key); err != nil {
		return err
	}
	if err := w.fill(ctx, p.keyStage, p.key, spans); err != nil {
		return err
	}
	_, err := w.exec(ctx, p.deleteStage(p.keyStage))
	return err
}

// upserts writes the rows that are there.
func (w writer) upserts(ctx context.Context) error {
	p, spans, partial := w.p, w.s.spans[:0], false
	for i := range p.entries {
		if e := &p.entries[i]; e.line.empty() {
			continue
		} else if e.partial {
			partial = true
		} else {
			spans = append(spans, e.line)
		}
	}
	w.s.spans = spans
	if len(spans) > 0 {
		if err := w.upsert(ctx, spans); err != nil {
			return err
		}
	}
	if partial {
		return w.updates(ctx)
	}
	return nil
}

func (w writer) upsert(ctx context.Context, spans []span) error {
	p := w.p
	if len(spans) < bulkRows {
		return w.rows(ctx, p.upsertRow(), spans, nil)
	}
	if len(p.key) == 0 {
		return w.fill(ctx, p.quoted, p.all(), spans)
	}
	if err := w.makeStage(ctx, &p.stage, &p.dirty, p.all()); err != nil {
		return err
	}
	if err := w.fill(ctx, p.stage, p.all(), spans); err != nil {
		return err
	}
	_, err := w.exec(ctx, p.upsertStage(p.stage))
	return err
}

// updates writes the rows that have columns unchanged: those with the same ones together.
func (w writer) updates(ctx context.Context) error {
	groups, order := make(map[string][]span), []string(nil)
	var mask []byte
	for i := range w.p.entries {
		e := &w.p.entries[i]
		if e.line.empty() || !e.partial {
			continue
		}
		mask = w.p.appendMask(mask[:0], e.line)
		if _, ok := groups[string(mask)]; !ok {
			order = append(order, string(mask))
		}
		groups[string(mask)] = append(groups[string(mask)], e.line)
	}
	for _, mask := range order {
		if err := w.update(ctx, mask, groups[mask]); err != nil {
			return err
		}
	}
	return nil
}

// appendMask appends, for each column of a line, 1 if it is unchanged, else 0.
func (p *plan) appendMask(dst []byte, line span) []byte {
	for rest := p.text[line.from : line.to-1]; rest != nil; {
		var field []byte
		field, rest = nextField(rest)
		if bytes.Equal(field, unchangedField) {
			dst = append(dst, 1)
		} else {
			dst = append(dst, 0)
		}
	}
	return dst
}

func (w writer) update(ctx context.Context, mask string, spans []span) error {
	p := w.p
	var set, order []int
	for i := range p.columns {
		if mask[i] == 0 && !p.isKey(i) && !p.columns[i].fixed {
			set = append(set, i)
		}
	}
	if len(set) == 0 {
		return nil // nothing but the key is known: nothing has changed
	}
	order = append(append(order, set...), p.key...)
	for _, k := range p.key {
		if mask[k] != 0 {
			return ofRow("ALTER TABLE … REPLICA IDENTITY FULL in the source, then read the table anew", "write to %s: the log does not hold the key of a row", p.quoted)
		}
	}
	if len(spans) < bulkRows {
		return w.rows(ctx, p.updateRow(set), spans, order)
	}
	if err := w.makeStage(ctx, &p.stage, &p.dirty, p.all()); err != nil {
		return err
	}
	from := len(p.text)
	for i, s := range spans {
		spans[i] = p.withoutMarks(s)
	}
	defer func() { p.text = p.text[:from] }()
	if err := w.fill(ctx, p.stage, p.all(), spans); err != nil {
		return err
	}
	tag, err := w.exec(ctx, p.updateStage(p.stage, set))
	if err != nil {
		return err
	}
	return p.met(tag.RowsAffected(), int64(len(spans)))
}

// withoutMarks appends a line with null for what is unchanged: nothing looks at it there.
func (p *plan) withoutMarks(line span) span {
	from := len(p.text)
	for rest := p.text[line.from : line.to-1]; rest != nil; {
		var field []byte
		field, rest = nextField(rest)
		if bytes.Equal(field, unchangedField) {
			field = nullField
		}
		p.text = append(append(p.text, field...), '\t')
	}
	p.text[len(p.text)-1] = '\n'
	return span{from, len(p.text)}
}

// met stops if an update did not find its rows: what is unchanged is then unknown.
func (p *plan) met(found, want int64) error {
	if found == want {
		return nil
	}
	return ofRow("ALTER TABLE … REPLICA IDENTITY FULL in the source, then have the sink begin anew: `tailrace sink resolve --from-beginning`",
		"write to %s: %d of %d rows of which columns are unchanged are not in the target", p.quoted, want-found, want)
}

// rows runs a statement for each line; its parameters are the line's fields, or those of
// the columns in order. A statement with order must find its row.
func (w writer) rows(ctx context.Context, sql string, spans []span, order []int) error {
	name, err := w.prepare(ctx, sql)
	if err != nil {
		return err
	}
	var fields [][]byte
	batch := &pgconn.Batch{}
	for _, s := range spans {
		fields = fields[:0]
		for rest := w.p.text[s.from : s.to-1]; rest != nil; {
			var field []byte
			field, rest = nextField(rest)
			fields = append(fields, unescape(field))
		}
		values := fields
		if order != nil {
			values = make([][]byte, len(order))
			for i, c := range order {
				values[i] = fields[c]
			}
		}
		batch.ExecPrepared(name, values, nil, nil)
	}
	return w.send(ctx, batch, order != nil)
}

// send runs a batch of statements; each must find a row if they must.
func (w writer) send(ctx context.Context, batch *pgconn.Batch, must bool) error {
	results, err := w.pg().ExecBatch(ctx, batch).ReadAll()
	if err != nil {
		return err
	}
	for _, r := range results {
		if must && r.CommandTag.RowsAffected() != 1 {
			return w.p.met(r.CommandTag.RowsAffected(), 1)
		}
	}
	return nil
}

func (w writer) prepare(ctx context.Context, sql string) (string, error) {
	if name := w.p.prepared[sql]; name != "" {
		return name, nil
	}
	w.s.stages++
	name := fmt.Sprintf("tailrace_%d", w.s.stages)
	if _, err := w.pg().Prepare(ctx, name, sql, nil); err != nil {
		return "", err
	}
	if w.p.prepared == nil {
		w.p.prepared = make(map[string]string)
	}
	w.p.prepared[sql] = name
	return name, nil
}
