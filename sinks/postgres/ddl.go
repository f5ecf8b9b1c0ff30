package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/schemas"
	"github.com/tailrace/tailrace/sinks"
)

// maxName is the longest identifier, in bytes: PostgreSQL cuts longer ones without an error.
const maxName = 63

// target is a table as the target's catalog has it.
type target struct {
	oid      uint32
	kind     string // relkind
	columns  []targetColumn
	uniques  [][]string // columns of each unique index that ON CONFLICT can use
	identity bool       // some column is GENERATED ALWAYS AS IDENTITY
}

type targetColumn struct {
	name      string
	typ       string // as format_type calls it
	generated bool   // GENERATED ALWAYS AS (…) STORED: cannot be written
	always    bool   // GENERATED ALWAYS AS IDENTITY: cannot be updated
}

func (t *target) column(name string) *targetColumn {
	for i := range t.columns {
		if t.columns[i].name == name {
			return &t.columns[i]
		}
	}
	return nil
}

// lookUp reads a table from the catalog; nil: there is none.
func lookUp(ctx context.Context, conn *pgx.Conn, schema, name string) (*target, error) {
	t := new(target)
	err := conn.QueryRow(ctx, `select c.oid, c.relkind::text from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		where n.nspname = $1 and c.relname = $2`, schema, name).Scan(&t.oid, &t.kind)
	if err == pgx.ErrNoRows {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up table %s: %w", quoteTable(schema, name), err)
	}
	rows, err := conn.Query(ctx, `select attname, pg_catalog.format_type(atttypid, null), attgenerated <> '', attidentity = 'a'
		from pg_catalog.pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped order by attnum`, t.oid)
	if err != nil {
		return nil, fmt.Errorf("look up columns of %s: %w", quoteTable(schema, name), err)
	}
	for rows.Next() {
		var c targetColumn
		if err := rows.Scan(&c.name, &c.typ, &c.generated, &c.always); err != nil {
			rows.Close()
			return nil, fmt.Errorf("look up columns of %s: %w", quoteTable(schema, name), err)
		}
		t.identity = t.identity || c.always
		t.columns = append(t.columns, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look up columns of %s: %w", quoteTable(schema, name), err)
	}
	t.uniques, err = lookUpUniques(ctx, conn, t.oid)
	return t, err
}

func lookUpUniques(ctx context.Context, conn *pgx.Conn, oid uint32) ([][]string, error) {
	rows, err := conn.Query(ctx, `select array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = i.indrelid
			and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1]))
		from pg_catalog.pg_index i where i.indrelid = $1 and i.indisunique and i.indimmediate and i.indisvalid
			and i.indpred is null and i.indexprs is null`, oid)
	if err != nil {
		return nil, fmt.Errorf("look up unique indexes: %w", err)
	}
	uniques, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	if err != nil {
		return nil, fmt.Errorf("look up unique indexes: %w", err)
	}
	return uniques, nil
}

// hasUnique says whether an index makes exactly these columns unique.
func (t *target) hasUnique(columns []string) bool {
	want := slices.Sorted(slices.Values(columns))
	return slices.ContainsFunc(t.uniques, func(u []string) bool {
		return slices.Equal(slices.Sorted(slices.Values(u)), want)
	})
}

// columnType returns the PostgreSQL type that holds every value of a column.
func columnType(c *sinks.Column) (string, error) {
	if name, ok := typeName(&c.Type); ok {
		return name, nil
	}
	switch c.Avro.Kind {
	case schemas.AvroBoolean:
		return "boolean", nil
	case schemas.AvroInt:
		return "integer", nil
	case schemas.AvroLong:
		return "bigint", nil
	case schemas.AvroFloat, schemas.AvroDouble:
		return "double precision", nil
	case schemas.AvroString, schemas.AvroEnum:
		return "text", nil
	case schemas.AvroBytes, schemas.AvroFixed:
		return "bytea", nil
	}
	return "", stop("leave the column out of the capture, or cast it in the source to a type with a plain form",
		"column %s: there is no column type for Avro %s %s", quoteIdent(c.Name), c.Avro.Kind, c.ConnectName)
}

// typeNames are the types of kinds without parameters. Fractions of seconds are not cut:
// Avro says only whether they fit into milliseconds.
var typeNames = map[schemas.Kind]string{
	schemas.Bool: "boolean", schemas.Int16: "smallint", schemas.Int32: "integer", schemas.Int64: "bigint",
	schemas.Float32: "real", schemas.Float64: "double precision", schemas.VarDecimal: "numeric",
	schemas.String: "text", schemas.Enum: "text", schemas.Bytes: "bytea", schemas.Date: "date",
	schemas.Time: "time", schemas.Timestamp: "timestamp", schemas.ZonedTimestamp: "timestamptz", schemas.ZonedTime: "timetz",
	schemas.Interval: "interval", schemas.UUID: "uuid", schemas.JSON: "jsonb", schemas.XML: "xml",
}

// maxNumeric is the highest precision that numeric(p,s) takes.
const maxNumeric = 1000

func typeName(t *schemas.Type) (string, bool) {
	switch t.Kind {
	case schemas.Decimal:
		if t.Precision < 1 || t.Precision > maxNumeric || t.Scale < 0 || t.Scale > t.Precision {
			return "numeric", true
		}
		return fmt.Sprintf("numeric(%d,%d)", t.Precision, t.Scale), true
	case schemas.Array:
		name, ok := typeName(t.Elem)
		return name + "[]", ok
	}
	name, ok := typeNames[t.Kind]
	return name, ok
}

// checkNames refuses what PostgreSQL would cut, and then perhaps take for another.
func checkNames(t *sinks.Table, schema, name string) error {
	names := []string{schema, name}
	for i := range t.Columns {
		names = append(names, t.Columns[i].Name)
	}
	for _, n := range names {
		if n == "" || len(n) > maxName || strings.Contains(n, "\x00") {
			return stop("rename it in the source, or choose another name adjustment for the capture",
				"topic %s: %q cannot be a name in PostgreSQL: it has %d bytes, 1 to %d are allowed", t.Topic, n, len(n), maxName)
		}
	}
	return nil
}

// createTable makes a table, and its schema if there is none.
func createTable(ctx context.Context, conn *pgx.Conn, t *sinks.Table, schema, name string) error {
	var has bool
	if err := conn.QueryRow(ctx, `select exists (select from pg_catalog.pg_namespace where nspname = $1)`, schema).Scan(&has); err != nil {
		return fmt.Errorf("look up schema %s: %w", quoteIdent(schema), err)
	}
	var ddl strings.Builder
	if !has {
		fmt.Fprintf(&ddl, "create schema %s; ", quoteIdent(schema))
	}
	fmt.Fprintf(&ddl, "create table %s (", quoteTable(schema, name))
	for i := range t.Columns {
		typ, err := columnType(&t.Columns[i])
		if err != nil {
			return fmt.Errorf("create table %s: %w", quoteTable(schema, name), err)
		}
		if i > 0 {
			ddl.WriteString(", ")
		}
		fmt.Fprintf(&ddl, "%s %s", quoteIdent(t.Columns[i].Name), typ)
	}
	if len(t.Key) > 0 {
		fmt.Fprintf(&ddl, ", primary key (%s)", strings.Join(quotedNames(t, t.Key), ", "))
	}
	ddl.WriteString(")")
	if _, err := conn.PgConn().Exec(ctx, ddl.String()).ReadAll(); err != nil {
		return fmt.Errorf("create table %s: %w", quoteTable(schema, name), err)
	}
	return nil
}

// addColumns adds what the changes have and the table does not.
func (s *Sink) addColumns(ctx context.Context, t *sinks.Table, has *target, table string) (added bool, err error) {
	var defaults map[string]any
	for i := range t.Columns {
		c := &t.Columns[i]
		if has.column(c.Name) != nil {
			continue
		}
		typ, err := columnType(c)
		if err != nil {
			return false, fmt.Errorf("add a column to %s: %w", table, err)
		}
		if defaults == nil {
			if defaults, err = defaultsOf(ctx, t, s.schema); err != nil {
				return false, err
			}
		}
		ddl := fmt.Sprintf("alter table %s add column %s %s", table, quoteIdent(c.Name), typ)
		if text, ok := defaultText(c, defaults[c.Name]); ok {
			ddl += " default" + quoteLiteral(text)
		}
		if _, err := s.conn.PgConn().Exec(ctx, ddl).ReadAll(); err != nil {
			return false, fmt.Errorf("add column %s to %s: %w", quoteIdent(c.Name), table, err)
		}
		added = true
	}
	return added, nil
}

// quotedNames returns the names of columns, quoted.
func quotedNames(t *sinks.Table, columns []int) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quoteIdent(t.Columns[c].Name)
	}
	return names
}
