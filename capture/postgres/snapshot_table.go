package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// readTable is a table as the snapshot is to read it.
type readTable struct {
	tableName
	oid         uint32
	partitioned bool   // read with its partitions, under its own name
	filter      string // SQL condition of the publication; "" for none
	listed      []string
	estimate    int64 // rows, as the planner has them; 0: not known
	readable    bool
	policies    bool // of row-level security hold for us
	keyed       bool // the log's rows have a key that is written as it is, and an index has the same
	key         []string
	cfg         *Config // whose choice of columns holds

	rel  *relation
	rows int64
}

// publishedForRead lists what the publication holds, as the log reports it: partitions, or
// with publish_via_partition_root the table that they are of. Of a table that is listed
// with the table that it is a partition of, only the latter is meant. Column lists and row
// filters are there since PostgreSQL 15. With a name it is only about that table.
//
// A table has a key if an index says so that has nothing but published columns: see
// describeRead and lookup.key.
const publishedForRead = `WITH p AS (
		SELECT c.oid, c.relkind, c.relreplident, c.reltuples, n.oid AS nsp, n.nspname, c.relname,
			to_jsonb(t) ->> 'rowfilter' AS filter,
			ARRAY(SELECT jsonb_array_elements_text(coalesce(nullif(to_jsonb(t) -> 'attnames', 'null'), '[]'))) AS listed
		FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
		JOIN pg_class c ON c.relname = t.tablename AND c.relnamespace = n.oid
		WHERE t.pubname = $1)
	SELECT p.nspname::text, p.relname::text, p.oid, p.relkind = 'p', coalesce(p.filter, ''), p.listed,
		coalesce((SELECT sum(greatest(l.reltuples, 0)) FROM pg_partition_tree(p.oid) tree
			JOIN pg_class l ON l.oid = tree.relid WHERE tree.isleaf), greatest(p.reltuples, 0))::int8,
		has_schema_privilege(p.nsp, 'USAGE') AND (has_table_privilege(p.oid, 'SELECT') OR NOT EXISTS (
			SELECT FROM pg_attribute a WHERE a.attrelid = p.oid AND a.attnum > 0 AND NOT a.attisdropped
			AND NOT has_column_privilege(p.oid, a.attnum, 'SELECT'))),
		row_security_active(p.oid),
		EXISTS (SELECT FROM pg_index i WHERE i.indrelid = p.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
			AND CASE p.relreplident WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate ELSE i.indisprimary END
			AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
				LEFT JOIN pg_attribute a ON a.attrelid = p.oid AND a.attnum = k.attnum AND a.attnum > 0
					AND CASE WHEN cardinality(p.listed) = 0 THEN a.attgenerated = '' ELSE a.attname::text = ANY (p.listed) END
					AND (a.attgenerated = '' OR current_setting('server_version_num')::int >= 180000)
				WHERE k.n <= i.indnkeyatts AND a.attnum IS NULL)),
		ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
			JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE i.indrelid = p.oid AND k.n <= i.indnkeyatts
			AND CASE p.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END)
	FROM p WHERE ($2 = '' OR p.nspname = $2 AND p.relname = $3) AND NOT EXISTS (SELECT FROM p r WHERE r.oid <> p.oid AND r.relkind = 'p'
		AND r.oid IN (SELECT pg_partition_ancestors(p.oid)))
	ORDER BY 7 DESC, 1, 2`

// tablesToRead lists the tables of the publication, the largest first; if only is a table,
// that one, or none.
func (s *Source) tablesToRead(ctx context.Context, sql *pgx.Conn, only tableName) ([]*readTable, error) {
	rows, err := sql.Query(ctx, publishedForRead, s.cfg.Publication, only.schema, only.name)
	if err != nil {
		return nil, fmt.Errorf("list the tables of publication %q: %w", s.cfg.Publication, err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*readTable, error) {
		t := &readTable{cfg: &s.cfg}
		err := row.Scan(&t.schema, &t.name, &t.oid, &t.partitioned, &t.filter, &t.listed,
			&t.estimate, &t.readable, &t.policies, &t.keyed, &t.key)
		t.keyed = t.keyed && t.maskedKey() == ""
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the tables of publication %q: %w", s.cfg.Publication, err)
	}
	return tables, nil
}

// maskedKey returns a column of the key that is masked, "" if there is none. The table is
// read like one without a key: how far its chunks have been read would be told by the keys
// themselves, in the state and to whoever asks.
func (t *readTable) maskedKey() string {
	for _, name := range t.key {
		if t.cfg.chosen(t.tableName, name).mask != nil {
			return name
		}
	}
	return ""
}

// keyless says that the table cannot be read in chunks.
func (t *readTable) keyless() bool { return !t.keyed }

// checkReadable lists the tables and sees that all may be read, before anything is made.
func (s *Source) checkReadable(ctx context.Context) ([]*readTable, error) {
	sql, err := s.catalog.connect(ctx)
	if err != nil {
		return nil, err
	}
	tables, err := s.tablesToRead(ctx, sql, tableName{})
	if err != nil {
		return nil, err
	}
	return tables, s.refuseUnreadable(tables)
}

func (s *Source) refuseUnreadable(tables []*readTable) error {
	var denied, hidden, schemas []string
	var first *readTable
	for _, t := range tables {
		switch {
		case !t.readable:
			denied = append(denied, t.quoted())
			if q := quoteIdent(t.schema); !slices.Contains(schemas, q) {
				schemas = append(schemas, q)
			}
		case t.policies:
			hidden = append(hidden, t.quoted())
		default:
			continue
		}
		if first == nil {
			first = t
		}
	}
	user := quoteIdent(s.cfg.user())
	switch {
	case len(denied) > 0:
		return unfit(fmt.Sprintf("as their owner: GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %s;",
			strings.Join(schemas, ", "), user, strings.Join(denied, ", "), user),
			"user %s may not read %d of the tables to be read first, among them %s", user, len(denied), first)
	case len(hidden) > 0:
		return unfit(fmt.Sprintf("as a superuser: ALTER ROLE %s BYPASSRLS; or leave the tables out: %s", user, strings.Join(hidden, ", ")),
			"row-level security hides rows of %s from user %s, which the log would show", first, user)
	}
	return nil
}

// describeRead makes the relation of a table as the log's Relation message would, so that
// the log's first change of it finds the version that the snapshot made. sql sees the
// catalog as it was at the slot's position.
//
// Source of the rules: PostgreSQL's logicalrep_write_rel and RelationGetIdentityKeyBitmap.
func (t *readTable) describeRead(ctx context.Context, sql *pgx.Conn) error {
	const query = `SELECT c.relreplident::text, a.attname::text, a.atttypid, a.atttypmod,
		c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)
			WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
			AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
			AND k.attnum = a.attnum AND k.n <= i.indnkeyatts)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.oid = $1 AND CASE WHEN coalesce(cardinality($2::text[]), 0) = 0 THEN a.attgenerated = '' ELSE a.attname::text = ANY ($2::text[]) END
		AND (a.attgenerated = '' OR current_setting('server_version_num')::int >= 180000)
		ORDER BY a.attnum`
	rows, err := sql.Query(ctx, query, t.oid, t.listed)
	if err != nil {
		return fmt.Errorf("describe table %s: %w", t, err)
	}
	identity := "d"
	var columns []relationColumn
	var c relationColumn
	_, err = pgx.ForEachRow(rows, []any{&identity, &c.name, &c.oid, &c.mod, &c.key}, func() error {
		columns = append(columns, c)
		return nil
	})
	if err != nil {
		return fmt.Errorf("describe table %s: %w", t, err)
	}
	if t.rel, err = parseRelation(appendRelation(nil, t, identity[0], columns)); err != nil {
		return fmt.Errorf("describe table %s: %w", t, err)
	}
	t.rel.choice = t.cfg.choose(t.rel)
	return nil
}

// appendRelation appends a Relation message, see parseRelation.
func appendRelation(dst []byte, t *readTable, identity byte, columns []relationColumn) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, 'R'), t.oid)
	if t.schema != "pg_catalog" {
		dst = append(dst, t.schema...)
	}
	dst = append(append(append(dst, 0), t.name...), 0, identity)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(columns)))
	for _, c := range columns {
		flags := byte(0)
		if c.key {
			flags = 1
		}
		dst = append(append(append(dst, flags), c.name...), 0)
		dst = binary.BigEndian.AppendUint32(dst, c.oid)
		dst = binary.BigEndian.AppendUint32(dst, uint32(c.mod))
	}
	return dst
}

// from names the table in a query.
func (t *readTable) from() string {
	if t.partitioned {
		return t.quoted()
	}
	return "ONLY " + t.quoted() // tables that inherit from it are tables of their own
}

// columns selects the columns that the log would report. What is not written in any form
// is not even asked for.
func (t *readTable) columns() string {
	names := make([]string, len(t.rel.columns))
	for i, c := range t.rel.columns {
		names[i] = quoteIdent(c.name)
		if t.rel.choice.hides(i) {
			names[i] = "NULL"
		}
	}
	return "SELECT " + strings.Join(names, ", ")
}

// query selects the rows and columns that the log would report.
func (t *readTable) query() string {
	query := t.columns() + " FROM " + t.from()
	if t.filter != "" {
		query += " WHERE (" + t.filter + ")"
	}
	return query
}
