package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/sinks"
)

// plan is how one version of a source's table goes into one table of the target. All that
// can fail for reasons of names and types happens when it is made.
type plan struct {
	table   *sinks.Table
	schema  string
	name    string
	quoted  string // schema.name
	target  *target
	columns []planColumn
	key     []int // indexes into columns, in key order
	rank    int   // tables with a lower one are referenced by those with a higher one
	durable bool  // it was made before this transaction, which may have made its table

	segment
}

// planColumn is one column that is written.
type planColumn struct {
	from   int // index into the source's columns
	column *sinks.Column
	quoted string
	encode encoder
	fixed  bool // GENERATED ALWAYS AS IDENTITY: an UPDATE cannot set it
}

// places are where tables go: by the names that the source has for them.
func (s *Sink) place(schema, name string) (string, string) {
	if s.cfg.Schema != "" {
		schema = s.cfg.Schema
	}
	if schema == "" {
		schema = "public"
	}
	return schema, name
}

// planOf returns the plan of a change's table. If it is a new one, the rows must hold the
// decoded change.
func (s *Sink) planOf(ctx context.Context, c *sinks.Change) (*plan, error) {
	if p := s.plans[c.Table]; p != nil {
		return p, nil
	}
	if err := s.decode(c); err != nil {
		return nil, err
	}
	schema, name := s.place(string(s.rows.SourceSchema()), string(s.rows.SourceTable()))
	p, err := s.newPlan(ctx, c.Table, schema, name)
	if err != nil {
		if sqlState(err) == stateUniqueViolation { // of the catalog
			return nil, &Error{fmt.Errorf("make table %s: %w", quoteTable(schema, name), err), "another member makes it at the same time; it is tried again", false, codeEnvironment}
		}
		return nil, writeError(s.user(), quoteTable(schema, name), err)
	}
	s.plans[c.Table] = p
	return p, s.rankPlans(ctx)
}

// decode decodes a change's row.
func (s *Sink) decode(c *sinks.Change) error { return undecodable(s.rows.Decode(c)) }

// undecodable is the error of a record that cannot be decoded; nil for none.
func undecodable(err error) error {
	if err == nil {
		return nil
	}
	return ofRow("the record is not what its schema says: look at it with `tailrace topic tail`", "%w", err)
}

func (s *Sink) newPlan(ctx context.Context, t *sinks.Table, schema, name string) (*plan, error) {
	if err := checkNames(t, schema, name); err != nil {
		return nil, err
	}
	has, err := s.ensureTable(ctx, t, schema, name)
	if err != nil {
		return nil, err
	}
	p := &plan{table: t, schema: schema, name: name, quoted: quoteTable(schema, name), target: has}
	for i := range t.Columns {
		c := &t.Columns[i]
		tc := has.column(c.Name)
		if tc.generated {
			continue
		}
		p.columns = append(p.columns, planColumn{from: i, column: c, quoted: quoteIdent(c.Name), encode: encoderOf(c, tc.typ), fixed: tc.always})
	}
	for _, k := range t.Key {
		i := slices.IndexFunc(p.columns, func(pc planColumn) bool { return pc.from == k })
		if i < 0 {
			return nil, unfit("make it an ordinary column in the target", "%s: key column %s is a generated one", p.quoted, quoteIdent(t.Columns[k].Name))
		}
		p.key = append(p.key, i)
	}
	return p, nil
}

// ensureTable returns the target's table, after it has made or extended it.
func (s *Sink) ensureTable(ctx context.Context, t *sinks.Table, schema, name string) (*target, error) {
	has, err := lookUp(ctx, s.conn, schema, name)
	if err != nil {
		return nil, err
	}
	quoted := quoteTable(schema, name)
	if has == nil {
		if s.written(t.Topic) {
			return nil, gone{&Error{fmt.Errorf("table %s is gone from the target, though rows were written to it", quoted),
				"restore the table; or have it filled anew", true, codeRuntime}}
		}
		if err := createTable(ctx, s.conn, t, schema, name); err != nil {
			return nil, err
		}
		s.cfg.Log.Info("made table", "sink", s.cfg.Name, "table", quoted)
		return lookUp(ctx, s.conn, schema, name)
	}
	if has.kind != "r" && has.kind != "p" {
		return nil, unfit("give the table in the target another name, or choose another schema for the sink", "%s is not a table in the target", quoted)
	}
	added, err := s.addColumns(ctx, t, has, quoted)
	if err != nil {
		return nil, err
	}
	if added {
		s.cfg.Log.Info("added columns", "sink", s.cfg.Name, "table", quoted)
		if has, err = lookUp(ctx, s.conn, schema, name); err != nil {
			return nil, err
		}
	}
	return has, checkKey(t, has, quoted)
}

// checkKey says whether rows of the table can be found by the source's key.
func checkKey(t *sinks.Table, has *target, quoted string) error {
	names := make([]string, len(t.Key))
	for i, k := range t.Key {
		names[i] = t.Columns[k].Name
	}
	if len(names) == 0 || has.hasUnique(names) {
		return nil
	}
	return unfit(fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (%s); in the target, or capture the table with the key that the target has", quoted, strings.Join(quotedNames(t, t.Key), ", ")),
		"%s has no primary key or unique constraint on %s, the key of the source", quoted, strings.Join(quotedNames(t, t.Key), ", "))
}

// written says whether rows of a topic were applied already, so that its table must exist.
func (s *Sink) written(topic string) bool {
	for p, h := range s.taken {
		if p.Topic == topic && h.filled {
			return true
		}
	}
	return false
}

// appendRow appends a row as a COPY line. partial says that something is unchanged.
func (p *plan) appendRow(dst []byte, scratch *[]byte, row sinks.Row) (line []byte, partial bool, err error) {
	for i := range p.columns {
		pc := &p.columns[i]
		v := row.Column(pc.from)
		switch v.State() {
		case sinks.Set:
			if dst, err = pc.encode(dst, scratch, v, pc.column); err != nil {
				return dst, false, p.valueError(pc, err)
			}
		case sinks.Unchanged:
			dst, partial = append(dst, unchangedField...), true
		default:
			dst = append(dst, nullField...)
		}
		dst = append(dst, '\t')
	}
	dst[len(dst)-1] = '\n'
	return dst, partial, nil
}

// appendKey appends a key, whose columns are in key order, as a COPY line.
func (p *plan) appendKey(dst []byte, scratch *[]byte, key sinks.Row) (line []byte, err error) {
	for i, k := range p.key {
		pc := &p.columns[k]
		v := key.Column(i)
		if v.State() != sinks.Set {
			dst = append(dst, nullField...)
		} else if dst, err = pc.encode(dst, scratch, v, pc.column); err != nil {
			return dst, p.valueError(pc, err)
		}
		dst = append(dst, '\t')
	}
	dst[len(dst)-1] = '\n'
	return dst, nil
}

func (p *plan) valueError(pc *planColumn, err error) error {
	hint := "the target's type cannot hold the value: correct the row in the source, or leave the column out of the capture"
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		hint = h.Hint()
	}
	return ofRow(hint, "write to %s, column %s: %w", p.quoted, pc.quoted, err)
}

// rankPlans orders the plans' tables by the target's foreign keys. In a circle the order is
// any: such constraints must be deferrable.
func (s *Sink) rankPlans(ctx context.Context) error {
	rows, err := s.conn.Query(ctx, `select conrelid, confrelid from pg_catalog.pg_constraint where contype = 'f' and conrelid <> confrelid`)
	if err != nil {
		return fmt.Errorf("look up foreign keys: %w", err)
	}
	references := make(map[uint32][]uint32)
	var from, to uint32
	if _, err := pgx.ForEachRow(rows, []any{&from, &to}, func() error {
		references[from] = append(references[from], to)
		return nil
	}); err != nil {
		return fmt.Errorf("look up foreign keys: %w", err)
	}
	ranks := make(map[uint32]int)
	var visit func(oid uint32) int
	visit = func(oid uint32) int {
		if r, ok := ranks[oid]; ok {
			return r
		}
		ranks[oid] = 0 // ends circles
		r := 0
		for _, parent := range references[oid] {
			r = max(r, visit(parent)+1)
		}
		ranks[oid] = r
		return r
	}
	for _, p := range s.plans {
		p.rank = visit(p.target.oid)
	}
	return nil
}
