package postgres

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/schemas"
)

// Columns chooses among the columns of the tables that a pattern names, and masks some. What
// is left out is in no schema; what is masked has the type that its Mask says. Columns go by
// their names as the database has them: one that is renamed is another. Only Include holds
// for columns that come later.
type Columns struct {
	Table   string          // schema.table as in Config.Tables
	Include []string        // only these are written; none: all
	Exclude []string        // these are not
	Mask    map[string]Mask // by column
}

// Validate returns what is wrong with an entry by itself.
func (c *Columns) Validate() error {
	p, err := parsePattern(c.Table)
	if err != nil {
		return err
	}
	const hint = "give include or exclude, and mask, each with columns' names"
	switch {
	case len(c.Include)+len(c.Exclude)+len(c.Mask) == 0:
		return misconfigured(hint, "columns of %s: nothing is chosen", p)
	case len(c.Include) > 0 && len(c.Exclude) > 0:
		return misconfigured("include leaves out all that it does not name: leave out exclude", "columns of %s: both include and exclude are given", p)
	}
	for _, name := range c.named() {
		if name == "" || len(name) > maxNameLength || strings.ContainsRune(name, 0) {
			return misconfigured("use 1 to 63 bytes", "columns of %s: %q is no column's name", p, name)
		}
	}
	for name, m := range c.Mask {
		if c.leavesOut(name) {
			return misconfigured("drop the mask; or have the column written", "columns of %s: %q is masked and left out", p, name)
		}
		if err := m.Validate(); err != nil {
			return fmt.Errorf("columns of %s: %q: %w", p, name, err)
		}
	}
	return nil
}

// named lists the columns that an entry names, in order.
func (c *Columns) named() []string {
	names := slices.Concat(c.Include, c.Exclude)
	for name := range c.Mask {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (c *Columns) leavesOut(column string) bool {
	return slices.Contains(c.Exclude, column) || len(c.Include) > 0 && !slices.Contains(c.Include, column)
}

// of says whether the entry is for a table, and whether it names that table alone.
func (c *Columns) of(t tableName) (matches, literal bool) {
	p, err := parsePattern(c.Table)
	return err == nil && p.matches(t.schema, t.name), p.literal()
}

// chosenColumn is what becomes of a column: with the zero value it is written as it is.
type chosenColumn struct {
	out  bool
	mask *Mask
}

// chosen puts together what all entries say of a column: it is left out if one leaves it
// out, and of several masks the first holds.
func (c *Config) chosen(t tableName, column string) (to chosenColumn) {
	for i := range c.Columns {
		entry := &c.Columns[i]
		if matches, _ := entry.of(t); !matches {
			continue
		}
		to.out = to.out || entry.leavesOut(column)
		if m, ok := entry.Mask[column]; ok && to.mask == nil {
			to.mask = &m
		}
	}
	if to.out {
		to.mask = nil
	}
	return to
}

// choice is what becomes of the columns of a relation; nil: all are written as they are.
type choice struct {
	columns []chosenColumn // in the log's order
	named   []string       // by entries without a *
}

// choose returns what the configuration says of a relation's columns.
func (c *Config) choose(rel *relation) *choice {
	ch := &choice{columns: make([]chosenColumn, len(rel.columns))}
	t, any := tableName{rel.namespace, rel.name}, false
	for i := range rel.columns {
		ch.columns[i] = c.chosen(t, rel.columns[i].name)
		any = any || ch.columns[i] != chosenColumn{}
	}
	for i := range c.Columns {
		if matches, literal := c.Columns[i].of(t); matches && literal {
			ch.named = append(ch.named, c.Columns[i].named()...)
		}
	}
	if !any && len(ch.named) == 0 {
		return nil
	}
	return ch
}

// mask returns the mask of a column, nil for none.
func (ch *choice) mask(at int) *Mask {
	if ch == nil {
		return nil
	}
	return ch.columns[at].mask
}

// out says whether a column is left out.
func (ch *choice) out(at int) bool { return ch != nil && ch.columns[at].out }

// hides says whether nothing of a column's values is written.
func (ch *choice) hides(at int) bool {
	m := ch.mask(at)
	return ch.out(at) || m != nil && (m.Kind == Redact || m.Kind == Constant)
}

// written returns the places of the columns that are written.
func (rel *relation) written() []int {
	places := make([]int, 0, len(rel.columns))
	for i := range rel.columns {
		if !rel.choice.out(i) {
			places = append(places, i)
		}
	}
	return places
}

// describe writes what makes a version of a table another one; nothing if all columns are
// written as they are.
func (ch *choice) describe(w io.Writer) {
	if ch == nil {
		return
	}
	for i, c := range ch.columns {
		switch {
		case c.out:
			fmt.Fprintf(w, "\x00%d out", i)
		case c.mask != nil:
			fmt.Fprintf(w, "\x00%d %s", i, c.mask.identity())
		}
	}
}

const hintNamed = "correct the name; if the column was renamed, write the new name; if it was dropped, name its table with a * (public.order*): then a column need not be there"

// checkNamed refuses a relation that lacks a column which its table's own entry names, and
// which the table does not have: it may have been renamed, and what it holds would go out as
// it is. The log need not have all columns of a table.
func (rel *relation) checkNamed(known map[string]catalogColumn) error {
	if rel.choice == nil {
		return nil
	}
	for _, name := range rel.choice.named {
		if _, ok := known[name]; !ok && rel.places([]string{name}) == nil {
			return misconfigured(hintNamed, "table %s has no column %q, which the configuration chooses", rel, name)
		}
	}
	return nil
}

// apply leaves out and masks columns of a table as the catalog described it, or says why
// that cannot be.
func (ch *choice) apply(t *schemas.Table) (*schemas.Table, error) {
	if ch == nil {
		return t, nil
	}
	out := &schemas.Table{Namespace: t.Namespace, Name: t.Name}
	places := make(map[int]int)
	for i, c := range t.Columns {
		key := slices.Contains(t.Key, i)
		if ch.out(i) {
			if key {
				return nil, misconfigured("have it written: without it, rows cannot be told apart; a mask with hmac keeps equal values equal",
					"column %q of table %s.%s is left out, and it is part of the key", c.Name, t.Namespace, t.Name)
			}
			continue
		}
		if m := ch.mask(i); m != nil {
			var err error
			if c, err = m.column(c, key); err != nil {
				return nil, fmt.Errorf("mask column %q of table %s.%s: %w", c.Name, t.Namespace, t.Name, err)
			}
		}
		places[i] = len(out.Columns)
		out.Columns = append(out.Columns, c)
	}
	if len(out.Columns) == 0 {
		return nil, misconfigured("have one written; or leave out the table", "no column of table %s.%s is written", t.Namespace, t.Name)
	}
	for _, i := range t.Key {
		out.Key = append(out.Key, places[i])
	}
	return out, nil
}

// checkColumns compares the entries with the tables that there are. A table or column that is
// named without a * must exist; a pattern that chooses nothing is logged.
func (s *Source) checkColumns(ctx context.Context, sql *pgx.Conn) error {
	if len(s.cfg.Columns) == 0 {
		return nil
	}
	tables, err := listColumns(ctx, sql)
	if err != nil {
		return err
	}
	for i := range s.cfg.Columns {
		entry := &s.cfg.Columns[i]
		p, err := parsePattern(entry.Table)
		if err != nil {
			return err
		}
		there, found := make(map[string]bool), false
		for t, columns := range tables {
			if p.matches(t.schema, t.name) {
				found = true
				for _, name := range columns {
					there[name] = true
				}
			}
		}
		missing := slices.DeleteFunc(entry.named(), func(name string) bool { return there[name] })
		switch {
		case !found && p.literal():
			return misconfigured("names are case-sensitive; a pattern with a * need not match", "columns are chosen of table %s, which does not exist", p)
		case len(missing) > 0 && p.literal():
			return misconfigured(hintNamed, "table %s has no column %q, which the configuration chooses", p, missing[0])
		case len(missing) > 0:
			s.log.Warn("no table that the pattern matches has these columns, which the configuration chooses", "table", p.String(), "columns", missing)
		}
	}
	return nil
}

// listColumns lists the columns of tables outside of the system's schemas.
func listColumns(ctx context.Context, sql *pgx.Conn) (map[tableName][]string, error) {
	const query = `SELECT n.nspname::text, c.relname::text, array_agg(a.attname::text)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
		AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' GROUP BY 1, 2`
	rows, err := sql.Query(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("list columns: %w", err)
	}
	tables := make(map[tableName][]string)
	var t tableName
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&t.schema, &t.name, &columns}, func() error {
		tables[t] = slices.Clone(columns)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list columns: %w", err)
	}
	return tables, nil
}
