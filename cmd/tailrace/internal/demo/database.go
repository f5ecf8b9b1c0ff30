package demo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// databases are the source and the target, on one server, under names that nothing else
// has.
type databases struct {
	admin          *url.URL
	name           string // of the capture's slot and publication too
	source, target string // their addresses
}

// createDatabases makes both. The caller must drop them.
func createDatabases(ctx context.Context, admin *url.URL, name string) (*databases, error) {
	d := &databases{admin: admin, name: name}
	conn, err := connect(ctx, admin.String())
	if err != nil {
		return nil, &environmentError{"connect to PostgreSQL", "--postgres takes postgres://user:password@host:port/database of a running server", err}
	}
	defer closeConn(conn)
	var level string
	if err := conn.QueryRow(ctx, "SHOW wal_level").Scan(&level); err != nil {
		return nil, err
	}
	if level != "logical" {
		return nil, &environmentError{"capture from this server", "ALTER SYSTEM SET wal_level = logical, then restart it", fmt.Errorf("its wal_level is %s", level)}
	}
	for _, db := range d.names() {
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+db+" TEMPLATE template0 ENCODING 'UTF8'"); err != nil {
			return nil, errors.Join(&environmentError{"create the demo's databases", "the user must be allowed to create databases and replication slots", err}, d.drop())
		}
	}
	d.source, d.target = d.address(d.names()[0]), d.address(d.names()[1])
	return d, nil
}

// names are the databases' names.
func (d *databases) names() [2]string { return [2]string{d.name + "_source", d.name + "_target"} }

// address is the server's address with another database.
func (d *databases) address(db string) string {
	u := *d.admin
	u.Path = "/" + db
	return u.String()
}

// drop removes the slot and the databases, whatever of them is there.
func (d *databases) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := connect(ctx, d.admin.String())
	if err != nil {
		return fmt.Errorf("remove the demo's databases %s_*: %w", d.name, err)
	}
	defer closeConn(conn)
	var errs []error
	for _, sql := range []string{
		"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '" + d.name + "' AND active_pid IS NOT NULL",
		"DO $$ DECLARE s text; BEGIN FOR i IN 1..100 LOOP SELECT slot_name INTO s FROM pg_replication_slots WHERE slot_name = '" + d.name +
			"'; EXIT WHEN NOT FOUND; BEGIN PERFORM pg_drop_replication_slot(s); EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.05); END; END LOOP; END $$",
		"DROP DATABASE IF EXISTS " + d.names()[0] + " WITH (FORCE)",
		"DROP DATABASE IF EXISTS " + d.names()[1] + " WITH (FORCE)",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			errs = append(errs, fmt.Errorf("remove the demo's databases %s_*: %w", d.name, err))
		}
	}
	return errors.Join(errs...)
}

// connect opens a connection that writes values in one form.
func connect(ctx context.Context, address string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	for name, value := range map[string]string{"application_name": "tailrace demo", "TimeZone": "UTC", "DateStyle": "ISO, YMD", "extra_float_digits": "3"} {
		cfg.RuntimeParams[name] = value
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// closeConn closes a connection, also after ctx has ended.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on how it ends
}

// compare returns the checksums of every table of the source's schema public, in both
// databases. A table or column that the target does not have makes an empty checksum.
func (d *databases) compare(ctx context.Context) ([]Table, error) {
	source, err := connect(ctx, d.source)
	if err != nil {
		return nil, err
	}
	defer closeConn(source)
	target, err := connect(ctx, d.target)
	if err != nil {
		return nil, err
	}
	defer closeConn(target)
	rows, err := source.Query(ctx, `SELECT table_name, array_agg(column_name ORDER BY ordinal_position)::text[]
		FROM information_schema.columns WHERE table_schema = 'public' GROUP BY 1 ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	type named struct {
		Name    string
		Columns []string
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[named])
	if err != nil {
		return nil, err
	}
	var out []Table
	for _, n := range list {
		t := Table{Name: n.Name}
		query := checksumQuery(n.Name, n.Columns)
		if err := source.QueryRow(ctx, query).Scan(&t.Source); err != nil {
			return nil, fmt.Errorf("sum up %s in the source: %w", n.Name, err)
		}
		if err := target.QueryRow(ctx, query).Scan(&t.Target); err != nil && ctx.Err() != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// checksumQuery sums up a table as "rows:md5", whatever the order of its rows.
func checksumQuery(table string, columns []string) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = "quote_nullable(" + pgx.Identifier{c}.Sanitize() + "::text)"
	}
	return fmt.Sprintf(`SELECT count(*) || ':' || md5(coalesce(string_agg(h, '' ORDER BY h COLLATE "C"), '')) FROM (SELECT md5(concat_ws('|', %s)) AS h FROM public.%s) x`,
		strings.Join(parts, ", "), pgx.Identifier{table}.Sanitize())
}
