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
	// Tables are those of the target that the sink writes to, as schema.table; in the latter *
	// stands for any characters. Schemas are created if they are not there; in each the role
	// may make tables, and of those that are there write the ones that are named.
	Tables []string
}

// A Step is a statement and what takes it back.
type Step struct {
	Why      string // one line
	Do, Undo string // without a semicolon at the end; "" if there is nothing to do
}

// Statements returns what a superuser runs in the target database, so that a role can apply
// changes there, and nothing more. What is to be taken back is taken back in the reverse
// order: tables that the role has made then belong to who takes back, and stay.
func (g Grants) Statements() ([]Step, error) {
	schemas, conditions, err := g.split()
	if err != nil {
		return nil, err
	}
	role := quoteIdent(g.Role)
	steps := []Step{{"", "CREATE ROLE " + role + " LOGIN", "DROP ROLE " + role}}
	if g.Existing {
		steps[0] = Step{"", "ALTER ROLE " + role + " LOGIN", ""}
	}
	steps = append(steps,
		Step{"what the role has made stays", "", "REASSIGN OWNED BY " + role + " TO CURRENT_USER"},
		Step{"this database; rows pass through temporary tables", onDatabase("GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I", g.Role), onDatabase("REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM %I", g.Role)},
		Step{"the positions of all sinks", "CREATE SCHEMA IF NOT EXISTS tailrace", ""},
		onSchema("tailrace", role),
		Step{"", ifPositions(`GRANT SELECT, INSERT, UPDATE, DELETE ON tailrace."position" TO %I`, g.Role), ifPositions(`REVOKE ALL ON tailrace."position" FROM %I`, g.Role)},
	)
	for _, schema := range schemas {
		quoted := quoteIdent(schema)
		steps = append(steps,
			Step{"tables that are missing are made; to add columns to one that is there, the role must own it", "CREATE SCHEMA IF NOT EXISTS " + quoted, ""},
			onSchema(quoted, role))
	}
	const grant, revoke = "GRANT " + rights + " ON %I.%I TO %I", "REVOKE " + rights + " ON %I.%I FROM %I"
	return append(steps, Step{"tables that are there now", forEach(conditions, grant, g.Role), forEach(conditions, revoke, g.Role)}), nil
}

// split returns the schemas, each once, and the condition that holds for the tables.
func (g Grants) split() (schemas []string, conditions string, err error) {
	if err := checkName(g.Role); err != nil {
		return nil, "", err
	}
	var all []string
	for _, t := range g.Tables {
		schema, name, ok := strings.Cut(t, ".")
		if !ok || name == "" || strings.Contains(schema, "*") {
			return nil, "", misconfigured("write schema.table; only in the table's name * stands for any characters", "%q does not say which schema is written to", t)
		}
		if err := checkName(schema); err != nil {
			return nil, "", err
		}
		schemas = append(schemas, schema)
		all = append(all, "n.nspname ="+quoteLiteral(schema)+" AND c.relname LIKE"+quoteLiteral(likePattern.Replace(name))+" ESCAPE '!'")
	}
	if len(all) == 0 {
		return nil, "", misconfigured("name the schemas and tables that the sink writes to", "no table is given")
	}
	slices.Sort(schemas)
	return slices.Compact(schemas), strings.Join(all, " OR "), nil
}

// likePattern makes of text in which * stands for any characters what LIKE takes.
var likePattern = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_", "*", "%")

func checkName(name string) error {
	if name == "" || len(name) > maxName || strings.ContainsRune(name, 0) {
		return misconfigured("use 1 to 63 bytes", "%q is no name in PostgreSQL", name)
	}
	return nil
}

// forEach runs a statement for each table that the condition holds for, with its schema,
// its name and the role.
func forEach(condition, format, role string) string {
	return "DO " + dollar("DECLARE t record; BEGIN\n  FOR t IN SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace\n"+
		"    WHERE c.relkind IN ('r', 'p') AND ("+condition+") LOOP\n"+
		"    EXECUTE format("+quoteLiteral(format)+", t.nspname, t.relname,"+quoteLiteral(role)+");\n  END LOOP; END")
}

// onSchema lets the role, quoted as schema is, see and make tables.
func onSchema(schema, role string) Step {
	return Step{"", "GRANT USAGE, CREATE ON SCHEMA " + schema + " TO " + role, "REVOKE USAGE, CREATE ON SCHEMA " + schema + " FROM " + role}
}

// onDatabase is a statement about the database that it is run in, whatever its name is.
func onDatabase(format, role string) string {
	return "DO " + dollar("BEGIN EXECUTE format("+quoteLiteral(format)+", current_database(),"+quoteLiteral(role)+"); END")
}

// ifPositions is a statement about the table of positions, if another sink has made it.
func ifPositions(format, role string) string {
	return "DO " + dollar(`BEGIN IF to_regclass('tailrace."position"') IS NOT NULL THEN EXECUTE format(`+quoteLiteral(format)+","+quoteLiteral(role)+"); END IF; END")
}

// dollar quotes the body of a DO, whatever is in it.
func dollar(body string) string {
	tag := "$do$"
	for i := 1; strings.Contains(body, tag); i++ {
		tag = fmt.Sprintf("$do%d$", i)
	}
	return tag + " " + body + " " + tag
}
