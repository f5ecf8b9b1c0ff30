package postgres

import "strings"

// quoteIdent returns name as a quoted SQL identifier. PostgreSQL has no identifier with a
// NUL; one is dropped, as nothing can follow it in a query.
func quoteIdent(name string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(name, "\x00", ""), `"`, `""`) + `"`
}

// quoteTable returns schema.name as quoted SQL.
func quoteTable(schema, name string) string { return quoteIdent(schema) + "." + quoteIdent(name) }

// quoteLiteral returns text as a SQL string that means the same whatever
// standard_conforming_strings says, and which the replication grammar takes if text has
// no backslash. A NUL is dropped.
func quoteLiteral(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\x00", ""), "'", "''")
	if strings.Contains(text, `\`) {
		return ` E'` + strings.ReplaceAll(text, `\`, `\\`) + `'`
	}
	return "'" + text + "'"
}

// quoteReplication returns text as a string of the replication commands' grammar, in which
// a backslash has no meaning.
func quoteReplication(text string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(text, "\x00", ""), "'", "''") + "'"
}
