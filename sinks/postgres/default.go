package postgres

import "github.com/tailrace/tailrace/sinks"

// defaultText returns a column's default as PostgreSQL reads it.
func defaultText(c *sinks.Column) (string, bool) { return "", false }
