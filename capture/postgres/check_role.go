package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
)

// roleFacts are the rights of the role that we are.
type roleFacts struct {
	super, bootstrap, createDB, createRole, bypass bool
	members                                        []string // powerful roles that it is a member of
}

// powerful are roles of the server whose members can do more than a capture or a sink has
// to: write or read everything, reach the server's files and programs.
const powerful = `'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_maintain', 'pg_create_subscription'`

// checkRole warns of rights that a capture does not need: whoever gets hold of its password
// has them.
func (c *checker) checkRole(ctx context.Context, sql *pgx.Conn) error {
	var r roleFacts
	const query = `SELECT rolsuper, oid = 10, rolcreatedb, rolcreaterole, rolbypassrls,
		ARRAY(SELECT g.rolname::text FROM pg_roles g WHERE g.rolname IN (` + powerful + `) AND pg_has_role(g.oid, 'MEMBER') ORDER BY 1)
		FROM pg_roles WHERE rolname = current_user`
	if err := sql.QueryRow(ctx, query).Scan(&r.super, &r.bootstrap, &r.createDB, &r.createRole, &r.bypass, &r.members); err != nil {
		return fmt.Errorf("read the rights of the role: %w", err)
	}
	user := quoteIdent(c.source.cfg.user())
	if r.super {
		var mend []string
		if !r.bootstrap {
			mend = []string{"ALTER ROLE " + user + " NOSUPERUSER REPLICATION"}
		}
		c.warn(CodeSuperuser, "url", "role "+user+" is a superuser", "give the capture a role of its own: `tailrace grants` prints what it needs", mend...)
		return nil
	}
	before := len(c.out.Findings)
	if r.createDB {
		c.excess(CodeCreateDB, "may create databases", "ALTER ROLE "+user+" NOCREATEDB")
	}
	if r.createRole {
		c.excess(CodeCreateRole, "may create roles", "ALTER ROLE "+user+" NOCREATEROLE")
	}
	if len(r.members) > 0 {
		c.excess(CodeMember, "is a member of "+strings.Join(r.members, ", "), "REVOKE "+quotedNames(r.members)+" FROM "+user)
	}
	if err := c.excessOnTables(ctx, sql, r.bypass); err != nil {
		return err
	}
	if len(c.out.Findings) == before {
		c.ok(CodeSuperuser, "url", "role %s has no rights that a capture does not need", user)
	}
	return nil
}

func (c *checker) excess(code, what, mend string) {
	c.warn(code, "url", "role "+quoteIdent(c.source.cfg.user())+" "+what+", which a capture does not need", mend+";", mend)
}

func quotedNames(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quoteIdent(n)
	}
	return strings.Join(out, ", ")
}

// excessOnTables looks whether the role may change what it is to read. To make or alter the
// publication it has to own the tables; otherwise it need not.
func (c *checker) excessOnTables(ctx context.Context, sql *pgx.Conn, bypass bool) error {
	var oids []uint32
	for _, t := range c.tables {
		oids = append(oids, t.oid)
	}
	var secured bool
	var owned, written []string
	const query = `SELECT coalesce(bool_or(c.relrowsecurity), false),
		coalesce(array_agg(format('%I.%I', n.nspname, c.relname)) FILTER (WHERE pg_has_role(c.relowner, 'USAGE')), '{}'),
		coalesce(array_agg(format('%I.%I', n.nspname, c.relname)) FILTER (WHERE NOT pg_has_role(c.relowner, 'USAGE')
			AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')), '{}')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1)`
	if err := sql.QueryRow(ctx, query, oids).Scan(&secured, &owned, &written); err != nil {
		return fmt.Errorf("read the rights on the tables: %w", err)
	}
	user := quoteIdent(c.source.cfg.user())
	if bypass && !secured && len(c.tables) > 0 {
		c.excess(CodeBypassRLS, "bypasses row-level security, and no table has any", "ALTER ROLE "+user+" NOBYPASSRLS")
	}
	if len(owned) > 0 && !c.source.cfg.CreatePublication {
		c.warn(CodeOwner, "url", fmt.Sprintf("role %s owns %s: it may change and drop them", user, someOf(owned)),
			"let another role own them: ALTER TABLE … OWNER TO …; the publication is not made by this role (create_publication: false)")
	}
	if len(written) > 0 && !c.has(CodeMember) {
		c.add(capture.Finding{Code: CodeWrites, Severity: capture.SeverityWarning, Setting: "url",
			Found: fmt.Sprintf("role %s may change %s, which a capture does not need", user, someOf(written)),
			Mend:  "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON … FROM " + user + "; and look at what PUBLIC and its other roles may do",
			SQL:   []string{"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON " + strings.Join(written, ", ") + " FROM " + user}})
	}
	return nil
}

func someOf(list []string) string {
	if len(list) <= namedAtMost {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:namedAtMost], ", "), len(list)-namedAtMost)
}
