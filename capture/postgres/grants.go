package postgres

import (
	"fmt"
	"slices"
	"strings"
)

// Grants says for whom the statements of Statements are.
type Grants struct {
	Role     string // it is created, unless Existing
	Existing bool   // the role is there already
	// Tables are patterns of schema.table as in Config; those with a * are looked up when the
	// statements are run.
	Tables      []string
	Publication string // it is created with the tables; "": none is
}

// A Step is a statement and what takes it back.
type Step struct {
	Why      string // one line
	Do, Undo string // without a semicolon at the end; "" if there is nothing to do
}

// Statements returns what a superuser runs in the captured database, so that a role can
// capture the tables, with create_publication: false, and nothing more. What is to be taken
// back is taken back in the reverse order.
func (g Grants) Statements() ([]Step, error) {
	if err := g.validate(); err != nil {
		return nil, err
	}
	role := quoteIdent(g.Role)
	const why = "REPLICATION also allows physical copies of the server: pg_hba.conf should not let the role into database \"replication\""
	steps := []Step{{why, "CREATE ROLE " + role + " LOGIN REPLICATION", "DROP ROLE " + role}}
	if g.Existing {
		steps[0] = Step{why, "ALTER ROLE " + role + " LOGIN REPLICATION", "ALTER ROLE " + role + " NOREPLICATION"}
	}
	steps = append(steps, Step{
		"this database",
		onDatabase("GRANT CONNECT ON DATABASE %I TO %I", g.Role),
		onDatabase("REVOKE CONNECT ON DATABASE %I FROM %I", g.Role),
	})
	steps = append(steps, g.read()...)
	if g.Publication != "" {
		steps = append(steps, Step{"what is captured; with create_publication: false in the configuration", g.publish(), "DROP PUBLICATION " + quoteIdent(g.Publication)})
	}
	return steps, nil
}

func (g Grants) validate() error {
	if err := checkName("role", g.Role); err != nil {
		return err
	}
	if g.Publication != "" {
		if err := checkName("publication", g.Publication); err != nil {
			return err
		}
	}
	if len(g.Tables) == 0 {
		return misconfigured("name the tables, as schema.table; * stands for any characters", "no tables are given")
	}
	for _, t := range g.Tables {
		if _, err := parsePattern(t); err != nil {
			return err
		}
	}
	return nil
}

func checkName(what, name string) error {
	if name == "" || len(name) > maxNameLength || strings.ContainsRune(name, 0) {
		return misconfigured("use 1 to 63 bytes", "%s name %q is not one of PostgreSQL", what, name)
	}
	return nil
}

// onDatabase is a statement about the database that it is run in, whatever its name is.
func onDatabase(format, role string) string {
	return "DO " + dollar("BEGIN EXECUTE format("+quoteLiteral(format)+", current_database(), "+quoteLiteral(role)+"); END")
}

// dollar quotes the body of a DO, whatever is in it.
func dollar(body string) string {
	tag := "$do$"
	for i := 1; strings.Contains(body, tag); i++ {
		tag = fmt.Sprintf("$do%d$", i)
	}
	return tag + " " + body + " " + tag
}

// read lets the role read the tables.
func (g Grants) read() (steps []Step) {
	role := quoteIdent(g.Role)
	literals, patterns := g.split()
	var schemas, tables []string
	for _, p := range literals {
		schemas, tables = append(schemas, quoteIdent(p.schema)), append(tables, quoteTable(p.schema, p.name))
	}
	slices.Sort(schemas)
	if in := strings.Join(slices.Compact(schemas), ", "); in != "" {
		all := strings.Join(tables, ", ")
		steps = append(steps,
			Step{"the tables, which are read once", "GRANT USAGE ON SCHEMA " + in + " TO " + role, "REVOKE USAGE ON SCHEMA " + in + " FROM " + role},
			Step{"", "GRANT SELECT ON " + all + " TO " + role, "REVOKE SELECT ON " + all + " FROM " + role})
	}
	why := "their partitions, if they have any"
	if len(patterns) > 0 {
		why = "the tables that the patterns name now, and partitions of all: run it again for those that come later"
	}
	return append(steps, Step{why,
		g.forEach(literals, patterns, "GRANT USAGE ON SCHEMA %I TO %I", "GRANT SELECT ON %I.%I TO %I"),
		g.forEach(literals, patterns, "REVOKE USAGE ON SCHEMA %I FROM %I", "REVOKE SELECT ON %I.%I FROM %I"),
	})
}

// split parts the patterns that name one table from the others.
func (g Grants) split() (literals, patterns []pattern) {
	for _, t := range g.Tables {
		p, err := parsePattern(t)
		switch {
		case err != nil: // validate has refused it
		case p.literal():
			literals = append(literals, p)
		default:
			patterns = append(patterns, p)
		}
	}
	return literals, patterns
}

// publishable are the tables that listTables lists, by their conditions in SQL.
const publishable = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace\n    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' " +
	`AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'`

// forEach runs two statements for each table that one of patterns names, and each partition
// of one that any names: one with its schema, one with schema and name, both with the role.
func (g Grants) forEach(literals, patterns []pattern, onSchema, onTable string) string {
	role := quoteLiteral(g.Role)
	where := "EXISTS (SELECT FROM pg_partition_ancestors(c.oid) p JOIN pg_class c2 ON c2.oid = p.relid JOIN pg_namespace n2 ON n2.oid = c2.relnamespace\n" +
		"      WHERE c2.oid <> c.oid AND (" + matching(append(literals, patterns...), "n2", "c2") + "))"
	if len(patterns) > 0 {
		where = matching(patterns, "n", "c") + "\n    OR " + where
	}
	return "DO " + dollar("DECLARE t record; BEGIN\n  FOR t IN SELECT n.nspname, c.relname FROM "+publishable+"\n    AND ("+where+") LOOP\n"+
		"    EXECUTE format("+quoteLiteral(onSchema)+", t.nspname, "+role+");\n"+
		"    EXECUTE format("+quoteLiteral(onTable)+", t.nspname, t.relname, "+role+");\n  END LOOP; END")
}

// matching is a condition that holds for tables that one of the patterns names; namespace
// and class are the aliases of the catalogs.
func matching(patterns []pattern, namespace, class string) string {
	var out []string
	for _, p := range patterns {
		out = append(out, namespace+".nspname "+like(p.schema)+" AND "+class+".relname "+like(p.name))
	}
	return strings.Join(out, " OR ")
}

// like compares with text in which * stands for any characters.
func like(text string) string {
	if !strings.Contains(text, "*") {
		return "= " + quoteLiteral(text)
	}
	return "LIKE " + quoteLiteral(strings.NewReplacer("!", "!!", "%", "!%", "_", "!_", "*", "%").Replace(text)) + " ESCAPE '!'"
}

// publish creates the publication. Partitions come with the table that they are of.
func (g Grants) publish() string {
	literals, patterns := g.split()
	if len(patterns) == 0 {
		tables := make([]catalogTable, len(literals))
		for i, p := range literals {
			tables[i] = catalogTable{tableName: tableName(p)}
		}
		return "CREATE PUBLICATION " + quoteIdent(g.Publication) + " FOR TABLE " + quotedList(tables)
	}
	return "DO " + dollar("BEGIN EXECUTE (\n  SELECT format('CREATE PUBLICATION %I FOR TABLE ', "+quoteLiteral(g.Publication)+") || string_agg(format('%I.%I', n.nspname, c.relname), ', ' ORDER BY 1)\n"+
		"  FROM "+publishable+" AND NOT c.relispartition AND ("+matching(append(literals, patterns...), "n", "c")+")); END")
}
