package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/sinks"
)

// checkTables looks at each table that would be applied: one that is there must take the
// changes, for one that is not, a table is made in its schema.
func (c *checker) checkTables(ctx context.Context, tx pgx.Tx) error {
	missing := map[string]bool{} // schemas, with whether a table of them is missing
	fit := 0
	for _, t := range c.tables {
		schema := t.Schema
		if c.cfg.Schema != "" {
			schema = c.cfg.Schema
		}
		has, err := lookUp(ctx, tx.Conn(), schema, t.Name)
		if err != nil {
			return err
		}
		missing[schema] = missing[schema] || has == nil
		if has == nil {
			continue
		}
		good, err := c.checkTable(ctx, tx, has, sinks.TableRef{Schema: schema, Name: t.Name})
		if err != nil {
			return err
		}
		if good {
			fit++
		}
	}
	if fit > 0 {
		c.ok(CodeTable, "", "%d tables are there and take changes", fit)
	}
	if len(c.tables) == 0 {
		missing[c.cfg.Schema] = true // "": a schema of its own, as for one that is not there yet
	}
	for _, schema := range sorted(missing) {
		if err := c.checkCreate(ctx, tx, schema, missing[schema]); err != nil {
			return err
		}
	}
	return nil
}

func sorted(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// rights are what the sink needs on a table.
const rights = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE"

// checkTable looks at a table that is there.
func (c *checker) checkTable(ctx context.Context, tx pgx.Tx, has *target, ref sinks.TableRef) (good bool, err error) {
	table := quoteTable(ref.Schema, ref.Name)
	if has.kind != "r" && has.kind != "p" {
		c.fail(CodeTable, "", unfit("rename it, or choose another schema for the sink", "%s is there and is no table", table))
		return false, nil
	}
	var lacking []string
	var usage, secured bool
	const query = `select array(select r from unnest(string_to_array($2, ', ')) r where not has_table_privilege($1::oid, r)),
		has_schema_privilege(relnamespace, 'USAGE'), row_security_active(oid) from pg_catalog.pg_class where oid = $1::oid`
	if err := tx.QueryRow(ctx, query, has.oid, rights).Scan(&lacking, &usage, &secured); err != nil {
		return false, fmt.Errorf("read the rights on %s: %w", table, err)
	}
	user := quoteIdent(c.to.User)
	if len(lacking) > 0 || !usage {
		mend := []string{"GRANT USAGE ON SCHEMA " + quoteIdent(ref.Schema) + " TO " + user, "GRANT " + rights + " ON " + table + " TO " + user}
		what := strings.Join(lacking, ", ")
		if what == "" {
			what = "USAGE of its schema"
		}
		c.fail(CodeTable, "", unfit(strings.Join(mend, "; ")+";", "role %s lacks %s on %s", user, what, table), mend...)
		return false, nil
	}
	if secured {
		c.warn(CodeRowSecurity, "", fmt.Sprintf("row-level security of %s holds for role %s: rows may be refused, or not be found", table, user),
			"let the role bypass it, or leave it to policies that allow everything", "ALTER ROLE "+user+" BYPASSRLS")
	}
	if len(has.uniques) == 0 {
		c.warn(CodeKey, "", fmt.Sprintf("%s has no primary key or unique constraint: changes of a table with a key cannot be applied to it", table),
			"add one on the columns of the source's key: ALTER TABLE "+table+" ADD PRIMARY KEY (…);")
		return false, nil
	}
	return true, nil
}

// checkCreate makes a table in a schema, and the schema if it is not there, and writes to
// it. If all tables of the schema are there, the sink can do without.
func (c *checker) checkCreate(ctx context.Context, tx pgx.Tx, schema string, needed bool) error {
	if schema == "" {
		schema = scratchName()
	}
	var has bool
	if err := tx.QueryRow(ctx, `select exists (select from pg_catalog.pg_namespace where nspname = $1)`, schema).Scan(&has); err != nil {
		return fmt.Errorf("look up schema %s: %w", quoteIdent(schema), err)
	}
	table := quoteTable(schema, scratchName())
	why, err := try(ctx, tx, func(tx pgx.Tx) error {
		statements := []string{"create table " + table + " (id int primary key, v text)", "insert into " + table + " values (1, 'a') on conflict (id) do update set v = excluded.v",
			"update " + table + " set v = 'b'", "delete from " + table, "truncate " + table, "alter table " + table + " add column w int"}
		if !has {
			statements = append([]string{"create schema " + quoteIdent(schema)}, statements...)
		}
		for _, s := range statements {
			if _, err := tx.Exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if why == nil {
		c.ok(CodeCreate, "schema", "made and wrote a table in schema %s", quoteIdent(schema))
		return nil
	}
	c.noCreate(schema, has, needed, why)
	return nil
}

// noCreate adds why no table could be made in a schema.
func (c *checker) noCreate(schema string, has, needed bool, why error) {
	user, quoted := quoteIdent(c.to.User), quoteIdent(schema)
	mend := "CREATE SCHEMA " + quoted + " AUTHORIZATION " + user
	switch {
	case has:
		mend = "GRANT USAGE, CREATE ON SCHEMA " + quoted + " TO " + user
	case strings.HasPrefix(schema, scratchPrefix):
		mend = "GRANT CREATE ON DATABASE " + quoteIdent(c.to.Database) + " TO " + user
	}
	failed := fmt.Errorf("make a table in schema %s: %w", quoted, why)
	switch {
	case sqlState(why) != stateNoPrivilege:
		c.fail(CodeCreate, "schema", failed)
	case needed:
		c.fail(CodeCreate, "schema", failed, mend)
	default:
		c.warn(CodeCreate, "schema", fmt.Sprintf("no table can be made in schema %s: all are there, but one that comes later would stop the sink", quoted), mend+";", mend)
	}
}

// checkRole warns of rights that a sink does not need.
func (c *checker) checkRole(ctx context.Context, conn *pgx.Conn) error {
	var super, bootstrap, createDB, createRole, replication bool
	var members []string
	const query = `select rolsuper, oid = 10, rolcreatedb, rolcreaterole, rolreplication,
		array(select g.rolname::text from pg_roles g where g.rolname in ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files',
			'pg_execute_server_program', 'pg_maintain', 'pg_create_subscription') and pg_has_role(g.oid, 'MEMBER') order by 1)
		from pg_roles where rolname = current_user`
	if err := conn.QueryRow(ctx, query).Scan(&super, &bootstrap, &createDB, &createRole, &replication, &members); err != nil {
		return fmt.Errorf("read the rights of the role: %w", err)
	}
	user := quoteIdent(c.to.User)
	if super {
		var mend []string
		if !bootstrap {
			mend = []string{"ALTER ROLE " + user + " NOSUPERUSER"}
		}
		c.warn(CodeSuperuser, "url", "role "+user+" is a superuser", "give the sink a role of its own: `tailrace grants --for sink` prints what it needs", mend...)
		return nil
	}
	quoted := make([]string, len(members))
	for i, m := range members {
		quoted[i] = quoteIdent(m)
	}
	before := len(c.findings)
	for _, excess := range []struct {
		has              bool
		code, what, mend string
	}{
		{createDB, CodeCreateDB, "may create databases", "ALTER ROLE " + user + " NOCREATEDB"},
		{createRole, CodeCreateRole, "may create roles", "ALTER ROLE " + user + " NOCREATEROLE"},
		{replication, CodeReplication, "may replicate, which shows it everything", "ALTER ROLE " + user + " NOREPLICATION"},
		{len(members) > 0, CodeMember, "is a member of " + strings.Join(members, ", "), "REVOKE " + strings.Join(quoted, ", ") + " FROM " + user},
	} {
		if excess.has {
			c.warn(excess.code, "url", "role "+user+" "+excess.what+", which a sink does not need", excess.mend+";", excess.mend)
		}
	}
	if len(c.findings) == before {
		c.add(sinks.Finding{Code: CodeSuperuser, Severity: sinks.SeverityOK, Setting: "url", Found: "role " + user + " has no rights that a sink does not need"})
	}
	return nil
}
