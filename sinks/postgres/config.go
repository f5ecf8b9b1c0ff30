package postgres

import (
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config is what a sink runs with.
type Config struct {
	Name   string // of the sink; its positions in the target stand under it
	URL    string // postgres://user:password@host:port/database?options, as libpq takes it
	Schema string // all tables go here; empty: into schemas called as the source's
	Log    *slog.Logger
}

// connectTimeout bounds a connection's coming to be, unless the URL says otherwise.
const connectTimeout = 10 * time.Second

// connection returns how to connect. Whatever the database's defaults are, values are
// written in one form.
func (c *Config) connection() (*pgx.ConnConfig, error) {
	if c.Name == "" {
		return nil, misconfigured("give the sink a name", "sink without a name")
	}
	cc, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return nil, misconfigured("the URL must look like postgres://user@host:5432/database", "read the target's URL: %w", err)
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = connectTimeout
	}
	for name, value := range map[string]string{
		"application_name":   c.applicationName(),
		"client_encoding":    "UTF8",
		"DateStyle":          "ISO, YMD",
		"IntervalStyle":      "postgres",
		"TimeZone":           "UTC",
		"extra_float_digits": "3",
		// A member that is frozen inside a transaction must not hold its locks for ever.
		"idle_in_transaction_session_timeout": "60s",
		"statement_timeout":                   "0",
	} {
		cc.RuntimeParams[name] = value
	}
	return cc, nil
}

// applicationName marks the sink's connections, so that a successor knows whom it may end.
func (c *Config) applicationName() string {
	name := "tailrace sink " + c.Name
	return name[:min(len(name), 63)]
}
