package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/capture/backfill"
)

// chunkTable is a table as chunks of it are read.
type chunkTable struct {
	*readTable
	fingerprint string // of what the catalog said; see fingerprint
	key         []keyColumn
	places      []int // of key in rel
}

// keyColumn is a column of the key, as its index compares it. The index's operators are
// named in full: those of citext, for example, stand in a schema of their own, and without
// them its texts would be compared as text's.
type keyColumn struct {
	name                                          string
	typ                                           string // with its modifier, for a cast
	collation                                     string // "": the type has none
	less, lessEqual, equal, greaterEqual, greater string
}

// fingerprint is what must not change for a description to stay as it is: the rows of the
// catalog that it was read from. The table's name and its schema's are in the query that it
// is part of; c is its row of pg_class.
func (c *chunkConn) fingerprint() string {
	q := `concat_ws(' ', c.oid, c.xmin,
		(SELECT string_agg(a.xmin::text, ',' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
		(SELECT string_agg(concat_ws(':', i.indexrelid, i.xmin), ',' ORDER BY i.indexrelid) FROM pg_index i WHERE i.indrelid = c.oid),
		(SELECT string_agg(concat_ws(':', b.oid, b.xmin, r.oid, r.xmin), ',' ORDER BY r.oid) FROM pg_publication b
			LEFT JOIN pg_publication_rel r ON r.prpubid = b.oid AND (r.prrelid = c.oid OR r.prrelid IN (SELECT relid FROM pg_partition_ancestors(c.oid)))
			WHERE b.pubname = ` + quoteLiteral(c.src.cfg.Publication) + `)`
	if c.version >= 150000 { // schemas can be members
		q += `, (SELECT string_agg(concat_ws(':', s.oid, s.xmin), ',' ORDER BY s.oid) FROM pg_publication_namespace s
			JOIN pg_publication b ON b.oid = s.pnpubid WHERE b.pubname = ` + quoteLiteral(c.src.cfg.Publication) + `)`
	}
	return q + ")"
}

// describe reads what there is to know of a table. Its definition must be locked, so that
// it stays as it is until the transaction ends.
func (c *chunkConn) describe(ctx context.Context, name tableName) (*chunkTable, error) {
	found, err := c.src.tablesToRead(ctx, c.sql, name)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, c.notPublished(ctx, name)
	}
	t := &chunkTable{readTable: found[0]}
	if err := c.src.refuseUnreadable(found); err != nil {
		return nil, err
	}
	if err := t.describeRead(ctx, c.sql); err != nil {
		return nil, err
	}
	return t, t.readKey(ctx, c.sql)
}

const hintKeyless = "add a primary key, or make a unique index on columns that are NOT NULL and run ALTER TABLE %s REPLICA IDENTITY USING INDEX …; without a key a table can be read only whole, when the slot is made"

// readKey finds the key of the table's rows and the index that has it.
func (t *chunkTable) readKey(ctx context.Context, sql *pgx.Conn) error {
	l := lookup{sql: sql}
	var err error
	if t.places, err = l.key(ctx, t.rel); err != nil {
		return fmt.Errorf("read the key of table %s: %w", t, err)
	}
	if column := t.maskedKey(); column != "" {
		return misconfigured("its rows are read whole, when the slot is made; to have them read again, open a new epoch",
			"column %q of the key of table %s is masked, so that it cannot be read in chunks: their bounds would show it", column, t)
	}
	if !t.keyed || len(t.places) == 0 {
		return misconfigured(fmt.Sprintf(hintKeyless, t.quoted()), "table %s has no key, so that it cannot be read in chunks", t)
	}
	if t.key, err = t.indexKey(ctx, sql); err != nil {
		return err
	}
	for i, p := range t.places {
		if len(t.key) != len(t.places) || t.key[i].name != t.rel.columns[p].name {
			return misconfigured(fmt.Sprintf(hintKeyless, t.quoted()), "no index of table %s has just the columns of its key", t)
		}
	}
	return nil
}

// indexKey reads the columns of the key's index, and how it compares them.
func (t *chunkTable) indexKey(ctx context.Context, sql *pgx.Conn) ([]keyColumn, error) {
	const query = `SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
			coalesce(quote_ident(cn.nspname) || '.' || quote_ident(co.collname), ''), m.amname::text,
			ARRAY(SELECT format('OPERATOR(%I.%s)', o_n.nspname, o.oprname) FROM pg_amop p
				JOIN pg_operator o ON o.oid = p.amopopr JOIN pg_namespace o_n ON o_n.oid = o.oprnamespace
				WHERE p.amopfamily = oc.opcfamily AND p.amoplefttype = oc.opcintype AND p.amoprighttype = oc.opcintype
				AND p.amoppurpose = 's' ORDER BY p.amopstrategy)
		FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am m ON m.oid = ic.relam
		CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) WITH ORDINALITY k(attnum, class, coll, n)
		JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		JOIN pg_opclass oc ON oc.oid = k.class
		LEFT JOIN pg_collation co ON co.oid = k.coll LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
		WHERE i.indrelid = $1 AND k.n <= i.indnkeyatts AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
		AND CASE WHEN $2 THEN i.indisreplident ELSE i.indisprimary END
		ORDER BY k.n`
	rows, err := sql.Query(ctx, query, t.oid, t.rel.identity == identityIndex)
	if err != nil {
		return nil, fmt.Errorf("read the key of table %s: %w", t, err)
	}
	var key []keyColumn
	var k keyColumn
	var method string
	var ops []string
	_, err = pgx.ForEachRow(rows, []any{&k.name, &k.typ, &k.collation, &method, &ops}, func() error {
		if method != "btree" || len(ops) != 5 {
			return misconfigured("a key that is compared column by column in one order is needed: an ordinary primary key",
				"column %q of the key of table %s is in an index of method %s, which has no order", k.name, t, method)
		}
		k.less, k.lessEqual, k.equal, k.greaterEqual, k.greater = ops[0], ops[1], ops[2], ops[3], ops[4]
		key = append(key, k)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the key of table %s: %w", t, err)
	}
	return key, nil
}

// notPublished says why the publication does not have a table.
func (c *chunkConn) notPublished(ctx context.Context, name tableName) error {
	const query = `SELECT c.relkind::text, coalesce(r.oid::regclass::text, '') FROM pg_class c
		LEFT JOIN pg_class r ON r.oid = pg_partition_root(c.oid) AND r.oid <> c.oid
		WHERE c.oid = to_regclass($1)`
	var kind, root string
	err := c.sql.QueryRow(ctx, query, name.quoted()).Scan(&kind, &root)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return noTable(name)
	case err != nil:
		return fmt.Errorf("look for table %s: %w", name, err)
	case kind == "p":
		return misconfigured("name its partitions, as which its changes are published; or have the publication publish via the partition root",
			"table %s is partitioned, and its changes are not published under its name", name)
	case root != "":
		return misconfigured(fmt.Sprintf("name %s instead, of which it is a partition; or list the table in the capture's configuration", root),
			"table %s is not published under its own name", name)
	}
	return misconfigured("list the table in the capture's configuration; views, unlogged and temporary tables have no changes in the log",
		"table %s is not in publication %q", name, c.src.cfg.Publication)
}

func noTable(name tableName) error {
	return misconfigured("write schema.table as the database has it; names are case-sensitive. If it was dropped or renamed, cancel the backfill",
		"there is no table %s", name)
}

func (t *chunkTable) keyNames() []string {
	names := make([]string, len(t.key))
	for i, k := range t.key {
		names[i] = k.name
	}
	return names
}

// expression is the column in a comparison.
func (k *keyColumn) expression() string {
	if k.collation == "" {
		return quoteIdent(k.name)
	}
	return quoteIdent(k.name) + " COLLATE " + k.collation
}

// literal is a value of the column.
func (k *keyColumn) literal(text string) string { return quoteLiteral(text) + "::" + k.typ }

// keyList lists the key's columns.
func (t *chunkTable) keyList() string {
	names := make([]string, len(t.key))
	for i, k := range t.key {
		names[i] = quoteIdent(k.name)
	}
	return strings.Join(names, ", ")
}

// order is an ORDER BY in which the key's index is.
func (t *chunkTable) order() string {
	terms := make([]string, len(t.key))
	for i, k := range t.key {
		terms[i] = k.expression() + " USING " + k.less
	}
	return " ORDER BY " + strings.Join(terms, ", ")
}

// within are conditions for keys in a range, each in parentheses.
func (t *chunkTable) within(r backfill.Range) []string {
	var terms []string
	if r.After != nil {
		terms = append(terms, "("+t.compare(r.After, true)+")")
	}
	if r.To != nil {
		terms = append(terms, "("+t.compare(r.To, false)+")")
	}
	return terms
}

// compare says that the key is greater than a bound, or not. One comparison of rows is what
// the index takes whole, but it can name only one operator for all columns.
func (t *chunkTable) compare(bound []string, greater bool) string {
	last := func(k *keyColumn) string {
		if greater {
			return k.greater
		}
		return k.lessEqual
	}
	one := !slices.ContainsFunc(t.key, func(k keyColumn) bool { return last(&k) != last(&t.key[0]) })
	if !one {
		return t.compareEach(bound, greater)
	}
	left, right := make([]string, len(t.key)), make([]string, len(t.key))
	for i := range t.key {
		left[i], right[i] = t.key[i].expression(), t.key[i].literal(bound[i])
	}
	op := " " + last(&t.key[0]) + " "
	if len(t.key) == 1 {
		return left[0] + op + right[0]
	}
	return "ROW(" + strings.Join(left, ", ") + ")" + op + "ROW(" + strings.Join(right, ", ") + ")"
}

// compareEach compares column by column: for the index there is a bound of the first.
//
//	a >= 1 AND (a > 1 OR a = 1 AND (b >= 2 AND (b > 2 OR b = 2 AND c > 3)))
func (t *chunkTable) compareEach(bound []string, greater bool) string {
	text := ""
	for i := len(t.key) - 1; i >= 0; i-- {
		k := &t.key[i]
		strict, loose := k.less, k.lessEqual
		if greater {
			strict, loose = k.greater, k.greaterEqual
		}
		term := func(op string) string { return "(" + k.expression() + " " + op + " " + k.literal(bound[i]) + ")" }
		switch {
		case text == "" && greater:
			text = term(strict)
		case text == "":
			text = term(loose)
		default:
			text = term(loose) + " AND (" + term(strict) + " OR " + term(k.equal) + " AND (" + text + "))"
		}
	}
	return text
}

// where joins conditions to a WHERE.
func where(terms ...string) string {
	if len(terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(terms, " AND ")
}

// chosen are the conditions for the rows that the backfill wants of those in its range.
func (t *chunkTable) chosen(r *capture.ChunkTable) []string {
	var terms []string
	if t.filter != "" {
		terms = append(terms, "("+t.filter+")")
	}
	if r.Where != "" {
		terms = append(terms, "("+r.Where+"\n)")
	}
	return terms
}
