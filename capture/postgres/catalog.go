package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/schemas"
)

// catalog reads what the log does not say of tables, over an ordinary connection that is
// opened when it is needed.
type catalog struct {
	cfg  *Config
	mu   sync.Mutex // Close may come while a run looks something up
	conn *pgx.Conn

	using sync.Mutex // held by describe
}

// connect returns the connection. A connection that broke is replaced.
func (c *catalog) connect(ctx context.Context) (*pgx.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && !c.conn.IsClosed() {
		return c.conn, nil
	}
	conn, err := c.cfg.connectSQL(ctx)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	return conn, nil
}

func (c *catalog) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	err := c.conn.Close(ctx)
	c.conn = nil
	if err != nil {
		return fmt.Errorf("close the catalog's connection: %w", err)
	}
	return nil
}

// describe makes the version of a table that the log described as rel: columns and types
// as the log has them, the rest from the catalog as it is now. What does not fit there any
// more is taken as nullable and without a default. It may be called from several
// goroutines, if nobody else uses the connection.
func (c *catalog) describe(ctx context.Context, rel *relation) (*schemas.Table, error) {
	c.using.Lock()
	defer c.using.Unlock()
	t, err := c.tryDescribe(ctx, rel)
	if err != nil && ctx.Err() == nil && sqlState(err) == "" {
		t, err = c.tryDescribe(ctx, rel) // the connection had broken since it was last used
	}
	if err != nil {
		return nil, fmt.Errorf("describe table %s: %w", rel, err)
	}
	rel.apply(t)
	return rel.choice.apply(t)
}

func (c *catalog) tryDescribe(ctx context.Context, rel *relation) (*schemas.Table, error) {
	sql, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	l := lookup{sql: sql}
	known, err := l.columns(ctx, rel.id)
	if err != nil {
		return nil, err
	}
	if err := rel.checkNamed(known); err != nil {
		return nil, err
	}
	t := &schemas.Table{Namespace: rel.namespace, Name: rel.name, Columns: make([]schemas.Column, len(rel.columns))}
	for i, rc := range rel.columns {
		col := schemas.Column{Name: rc.name, Nullable: true}
		resolved, err := l.resolve(ctx, rc.oid, rc.mod)
		if err != nil {
			return nil, err
		}
		col.Type = resolved.typ
		if k, ok := known[rc.name]; ok && k.oid == rc.oid && k.mod == rc.mod {
			col.Nullable = !k.notNull && !resolved.notNull
			col.Default = parseDefault(k.expression, resolved)
		}
		t.Columns[i] = col
	}
	t.Key, err = l.key(ctx, rel)
	return t, err
}

// lookup answers questions of one describe.
type lookup struct {
	sql *pgx.Conn
}

type catalogColumn struct {
	oid        uint32
	mod        int32
	notNull    bool
	expression string // of the default; "" for none
}

// columns returns a table's columns by name; none if the table is gone.
func (l *lookup) columns(ctx context.Context, table uint32) (map[string]catalogColumn, error) {
	const query = `SELECT a.attname::text, a.atttypid, a.atttypmod, a.attnotnull,
		CASE WHEN a.attgenerated = '' THEN coalesce(pg_get_expr(d.adbin, d.adrelid), '') ELSE '' END
		FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped`
	rows, err := l.sql.Query(ctx, query, table)
	if err != nil {
		return nil, err
	}
	known := make(map[string]catalogColumn)
	var name string
	var k catalogColumn
	_, err = pgx.ForEachRow(rows, []any{&name, &k.oid, &k.mod, &k.notNull, &k.expression}, func() error {
		known[name] = k
		return nil
	})
	return known, err
}

// key returns the key's columns, by their places in rel, in the order of the index. The
// log says which columns they are, but for tables whose old rows are whole: then it is the
// primary key.
func (l *lookup) key(ctx context.Context, rel *relation) ([]int, error) {
	const query = `SELECT array_agg(a.attname::text ORDER BY k.n)
		FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(attnum, n)
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		WHERE i.indrelid = $1 AND k.n <= i.indnkeyatts
		AND CASE WHEN $2 THEN i.indisreplident ELSE i.indisprimary END
		GROUP BY i.indexrelid`
	var columns []string
	err := l.sql.QueryRow(ctx, query, rel.id, rel.identity == identityIndex).Scan(&columns)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	ordered := rel.places(columns)
	if rel.identity == identityFull || rel.identity == identityNothing {
		return ordered, nil
	}
	var logged []int
	for i := range rel.columns {
		if rel.columns[i].key {
			logged = append(logged, i)
		}
	}
	if sorted := slices.Sorted(slices.Values(ordered)); slices.Equal(sorted, logged) {
		return ordered, nil
	}
	return logged, nil // the index has changed since
}

// places returns where the named columns stand in rel; none if one is missing.
func (rel *relation) places(columns []string) []int {
	var places []int
	for _, name := range columns {
		i := slices.IndexFunc(rel.columns, func(c relationColumn) bool { return c.name == name })
		if i < 0 {
			return nil
		}
		places = append(places, i)
	}
	return places
}

// resolvedType is a type as it is written, with what a domain adds.
type resolvedType struct {
	typ      schemas.Type
	notNull  bool // a domain's
	array    bool // arrays of it are written as arrays
	defaults bool // defaults of it are written
}

// resolve finds what a type is: one of pg_catalog that is known here, an enum, a domain or
// an array of such. Any other, also one that the catalog no longer has, is its text.
func (l *lookup) resolve(ctx context.Context, oid uint32, mod int32) (resolvedType, error) {
	if b, ok := builtins[oid]; ok {
		return resolvedType{typ: b.typeWithMod(mod), array: b.array, defaults: b.defaults}, nil
	}
	const query = `SELECT t.typtype::text, t.typbasetype, t.typtypmod, t.typnotnull, coalesce(e.oid, 0)
		FROM pg_type t LEFT JOIN pg_type e ON e.typarray = t.oid WHERE t.oid = $1`
	var kind string
	var base, elem uint32
	var baseMod int32
	var notNull bool
	text := resolvedType{typ: schemas.Type{Kind: schemas.String}}
	err := l.sql.QueryRow(ctx, query, oid).Scan(&kind, &base, &baseMod, &notNull, &elem)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return text, nil
	case err != nil:
		return text, err
	case kind == "e":
		labels, err := l.labels(ctx, oid)
		return resolvedType{typ: schemas.Type{Kind: schemas.Enum, Allowed: labels}, array: true, defaults: true}, err
	case kind == "d":
		r, err := l.resolve(ctx, base, baseMod)
		r.notNull = r.notNull || notNull
		return r, err
	case elem == 0:
		return text, nil
	}
	item, err := l.resolve(ctx, elem, mod)
	if err != nil || !item.array {
		return text, err
	}
	return resolvedType{typ: schemas.Type{Kind: schemas.Array, Elem: &item.typ}}, nil
}

// labels returns the labels of an enum in their order.
func (l *lookup) labels(ctx context.Context, oid uint32) ([]string, error) {
	rows, err := l.sql.Query(ctx, "SELECT enumlabel::text FROM pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder", oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
