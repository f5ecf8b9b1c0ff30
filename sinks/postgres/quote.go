package postgres

import "strings"

// quoteIdent returns name as a quoted SQL identifier. Everything that this package puts
// into SQL as a name goes through it; all else is bound as a parameter, but for a column's
// default, which goes through quoteLiteral. PostgreSQL has no identifier with a NUL: it is
// dropped.
func quoteIdent(name string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(name, "\x00", ""), `"`, `""`) + `"`
}

// quoteTable returns schema.name as quoted SQL.
func quoteTable(schema, name string) string { return quoteIdent(schema) + "." + quoteIdent(name) }

// quoteLiteral returns text as a SQL string that means the same whatever
// standard_conforming_strings says.
func quoteLiteral(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\x00", ""), "'", "''")
	return " E'" + strings.ReplaceAll(text, `\`, `\\`) + "'"
}
