package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/schemas"
)

// rowWriter makes records of row messages. Its buffers are used again for each row.
type rowWriter struct {
	out    capture.Emitter
	source *schemas.SourceWriter
	now    int64 // time of processing, microseconds since 1970

	msg           rowMessage
	change        capture.Change
	key, oldKey   []byte
	value, second []byte // second: the create of a key change
	keyChanged    bool
}

// maxScratch is how much a buffer keeps between rows; only rows that are larger than this
// allocate.
const maxScratch = 1 << 20

// shrink gives up what a large row has left behind.
func (w *rowWriter) shrink() {
	for _, b := range []*[]byte{&w.key, &w.oldKey, &w.value, &w.second} {
		if cap(*b) > maxScratch {
			*b = nil
		}
	}
	w.change = capture.Change{}
}

// row writes the records of an Insert, Update or Delete that stands at lsn.
func (s *stream) row(ctx context.Context, lsn uint64, m []byte) error {
	rel, err := s.relationOf(m)
	if err != nil {
		return err
	}
	if !s.announced {
		if err := s.announce(); err != nil {
			return err
		}
	}
	if rel.plan == nil {
		if err := s.describe(ctx, rel); err != nil {
			return err
		}
	}
	s.msg.old, s.msg.new = rel.old, rel.new
	if err := s.msg.split(m); err != nil {
		return s.broken(lsn, m, fmt.Errorf("table %s: %w", rel, err))
	}
	for {
		column, err := s.encode(rel.plan, lsn)
		if err == nil {
			return s.emit(ctx, rel.plan)
		}
		if err := s.widen(ctx, rel, column, lsn, err); err != nil {
			return err
		}
	}
}

// relationOf finds the relation of a row message. Most rows are of the same table as the
// one before.
func (s *stream) relationOf(m []byte) (*relation, error) {
	if len(m) < rowHeader {
		return nil, s.broken(0, m, errTruncated)
	}
	id := binary.BigEndian.Uint32(m[1:])
	if s.last != nil && s.last.id == id {
		return s.last, nil
	}
	rel := s.relations[id]
	if rel == nil {
		return nil, s.broken(0, m, fmt.Errorf("relation %d was never described", id))
	}
	s.last = rel
	return rel, nil
}

// encode fills key and value, and for a key change also oldKey and second, from the row
// message s.msg. On an error, column is the one that did not fit.
func (w *rowWriter) encode(p *plan, lsn uint64) (column int, err error) {
	op, r := w.msg.op, &w.msg
	w.keyChanged = false
	if op == 'U' && r.oldTag != 0 {
		fillUnchanged(p, r)
	}
	if keyed := len(p.route.Table.Key) > 0; keyed {
		if column, err = w.encodeKeys(p, op); err != nil {
			return column, err
		}
	}
	switch {
	case op == 'I':
		w.value, column, err = w.envelope(w.value, p, 'c', lsn)
	case op == readRow:
		w.value, column, err = w.envelope(w.value, p, 'r', lsn)
	case op == 'D' || w.keyChanged:
		w.value, column, err = w.envelope(w.value, p, 'd', lsn)
		if err == nil && w.keyChanged {
			w.second, column, err = w.envelope(w.second, p, 'c', lsn)
		}
	default:
		w.value, column, err = w.envelope(w.value, p, 'u', lsn)
	}
	return column, err
}

// encodeKeys fills key, and oldKey where the message has an old row, and finds out whether
// the key changed.
func (w *rowWriter) encodeKeys(p *plan, op byte) (column int, err error) {
	r := &w.msg
	if op != 'I' && r.oldTag != 0 {
		if w.oldKey, column, err = p.appendKey(w.oldKey[:0], r.bytes, r.old); err != nil {
			return column, err
		}
	}
	if op == 'D' {
		w.key = append(w.key[:0], w.oldKey...)
		return 0, nil
	}
	w.key, column, err = p.appendKey(w.key[:0], r.bytes, r.new)
	w.keyChanged = err == nil && op == 'U' && r.oldTag != 0 && !bytes.Equal(w.key, w.oldKey)
	return column, err
}

// fillUnchanged takes what an UPDATE did not touch from the old row, where that has it.
func fillUnchanged(p *plan, r *rowMessage) {
	for i := range p.columns {
		c := &p.columns[i]
		if r.new[c.at].start == fieldUnchanged && (r.oldTag == 'O' || c.inOld) {
			r.new[c.at] = r.old[c.at]
		}
	}
}

// envelope writes a framed value over dst: before for u and d, after for c, u and r.
func (w *rowWriter) envelope(dst []byte, p *plan, op byte, lsn uint64) (out []byte, column int, err error) {
	r := &w.msg
	dst = schemas.AppendFrame(dst[:0], p.route.ValueID)
	switch {
	case op != 'c' && r.oldTag == 'O': // a row that was read has none
		dst, column, err = p.appendRow(schemas.AppendUnion(dst, schemas.EnvelopeRow), r.bytes, r.old)
	case op == 'd':
		dst, column, err = p.appendOldKey(schemas.AppendUnion(dst, schemas.EnvelopeRow), r.bytes, r.old)
	default: // the replica identity alone is no row before
		dst = schemas.AppendUnion(dst, schemas.EnvelopeNull)
	}
	if err != nil {
		return dst, column, err
	}
	if op == 'd' {
		dst = schemas.AppendUnion(dst, schemas.EnvelopeNull)
	} else if dst, column, err = p.appendRow(schemas.AppendUnion(dst, schemas.EnvelopeRow), r.bytes, r.new); err != nil {
		return dst, column, err
	}
	dst = w.source.Append(dst, p.source, lsn)
	return schemas.AppendEnvelopeTail(dst, op, w.now), 0, nil
}

// emit hands over the records of the row message that encode wrote.
func (w *rowWriter) emit(ctx context.Context, p *plan) error {
	w.change = capture.Change{Route: p.route, Key: w.key, Value: w.value, Part: w.msg.op == 'U' && p.lacksValue(w.msg.new)}
	if len(p.route.Table.Key) == 0 {
		w.change.Key = nil
	}
	switch {
	case w.msg.op == 'I':
		w.change.Op = 'c'
	case w.msg.op == readRow:
		w.change.Op = 'r'
	case w.msg.op == 'D':
		w.change.Op = 'd'
	case w.keyChanged:
		return w.emitKeyChange(ctx, p)
	default:
		w.change.Op = 'u'
	}
	if err := w.out.Change(ctx, &w.change); err != nil || w.msg.op != 'D' || w.change.Key == nil {
		return err
	}
	w.change.Op, w.change.Value = 0, nil
	return w.out.Change(ctx, &w.change)
}

// lacksValue says whether a row has a value that is to be written and is not in the log.
func (p *plan) lacksValue(fields []field) bool {
	for i := range p.columns {
		if c := &p.columns[i]; c.fixed == nil && fields[c.at].start == fieldUnchanged {
			return true
		}
	}
	return false
}

// emitKeyChange hands over three records: the delete of the old key, its tombstone, the
// create of the new one.
func (w *rowWriter) emitKeyChange(ctx context.Context, p *plan) error {
	c, r := &w.change, &w.msg
	newKey := appendKeyJSON(nil, p, r.bytes, r.new)
	oldKey := appendKeyJSON(nil, p, r.bytes, r.old)

	c.Op, c.Key, c.NewKey = 'd', w.oldKey, newKey
	if err := w.out.Change(ctx, c); err != nil {
		return err
	}
	c.Op, c.Value = 0, nil
	if err := w.out.Change(ctx, c); err != nil {
		return err
	}
	c.Op, c.Key, c.Value, c.NewKey, c.OldKey = 'c', w.key, w.second, nil, oldKey
	return w.out.Change(ctx, c)
}

// widen makes the version of the table that a row needs which its plan could not take, or
// returns why there is none.
func (s *stream) widen(ctx context.Context, rel *relation, column int, lsn uint64, cause error) error {
	if err := s.addTo(rel, column, cause); err != nil {
		return fmt.Errorf("at %s: %w", lsnText(lsn), err)
	}
	rel.plan = nil
	return s.describe(ctx, rel)
}

// addTo adds to a relation what the row message showed of a column whose plan could not
// take it, or returns why no version can.
func (w *rowWriter) addTo(rel *relation, column int, cause error) error {
	c := &rel.plan.columns[column]
	add := addition{column: c.at}
	switch {
	case errors.Is(cause, errNull):
		add.isNull = true
	case errors.Is(cause, errUnknownLabel):
		add.label = w.unknownLabel(c)
	default:
		return unfitting(rel, c, cause)
	}
	if !rel.add(add) {
		return unfitting(rel, c, cause)
	}
	return nil
}

// unknownLabel finds the label of an enum, or of an array of an enum, that c's version does
// not have.
func (w *rowWriter) unknownLabel(c *column) string {
	r := &w.msg
	rows := make([][]field, 0, 2)
	if r.oldTag != 0 {
		rows = append(rows, r.old)
	}
	if r.op != 'D' {
		rows = append(rows, r.new)
	}
	for _, fields := range rows {
		f := fields[c.at]
		if f.start < 0 {
			continue
		}
		if label, ok := c.firstUnknown(r.bytes[f.start:f.end]); ok {
			return label
		}
	}
	return ""
}

// firstUnknown returns the first label in a text that c does not know.
func (c *column) firstUnknown(text []byte) (label string, ok bool) {
	if c.elem == nil {
		_, known := c.labels[string(text)]
		return string(text), !known
	}
	items, ok := cutBounds(text)
	for ok && len(items) > 0 {
		var item arrayItem
		if item, items, ok = nextItem(items, nil); ok {
			if label, unknown := c.elem.firstUnknown(item.text); unknown {
				return label, true
			}
		}
	}
	return "", false
}

// unfitting is the error for a value that no version of its table can take.
func unfitting(rel *relation, c *column, cause error) error {
	hint := ""
	switch {
	case errors.Is(cause, errUnavailable):
		hint = fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL; then correct the row", quoteTable(rel.namespace, rel.name))
	case errors.Is(cause, schemas.ErrUnrepresentable):
		hint = "set unrepresentable: null, to write null for such values; or change the column's type"
	}
	return stop(hint, "column %q of table %s: %w", c.name, rel, cause)
}
