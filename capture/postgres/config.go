package postgres

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// What is done with a value that its Avro type cannot hold: NaN in a numeric, an infinite
// date, an array of more than one dimension.
const (
	UnrepresentableStop = "stop" // the run ends with a fatal error; nothing is skipped
	UnrepresentableNull = "null" // null is written
)

// Config says which database is read, and how.
type Config struct {
	URL    string // of the database, postgres://user:password@host:port/database?…; may hold a password
	Name   string // of the capture: part of the application_name that the server shows
	Prefix string // of the topics; Debezium's source.name

	Slot        string // replication slot, [a-z0-9_]{1,63}
	Publication string
	// CreatePublication lets Prepare create the publication if it is missing, and Run add
	// or remove tables so that it holds what Tables says. The user must own the tables.
	CreatePublication bool
	// Tables are patterns of schema.table in which * stands for any number of characters;
	// a name without a * must exist. None: what the publication holds; if that has to be
	// created, every table.
	Tables []string
	// TablesNow returns what Tables are by now, if they change while the source is used; nil:
	// they do not. It may be called from any goroutine; what it returns is valid, and is not
	// written to.
	TablesNow func() []string

	// Columns choose and mask columns. All entries whose pattern matches a table hold for it.
	Columns []Columns

	// SnapshotReaders is how many connections read the tables of the initial snapshot side
	// by side; 0: 2.
	SnapshotReaders int

	Unrepresentable string        // UnrepresentableStop (also if empty) or UnrepresentableNull
	StatusInterval  time.Duration // at which the server hears from us at least; 0: 10 s
	Version         string        // of tailrace, for Debezium's source.version

	Registerer prometheus.Registerer // may be nil
	Log        *slog.Logger          // nil: slog.Default()
}

const (
	maxNameLength         = 63 // NAMEDATALEN - 1
	defaultStatusInterval = 10 * time.Second
	connectTimeout        = 15 * time.Second

	defaultSnapshotReaders = 2
	maxSnapshotReaders     = 64
)

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Validate returns what is wrong with c, all of it at once.
func (c *Config) Validate() error {
	var errs []error
	add := func(hint, format string, args ...any) {
		errs = append(errs, misconfigured(hint, format, args...))
	}
	if _, err := c.parseURL(); err != nil {
		errs = append(errs, err)
	}
	if !slotName.MatchString(c.Slot) {
		add("use up to 63 lower-case letters, digits and underscores", "slot name %q is not one of PostgreSQL", c.Slot)
	}
	if c.Publication == "" || len(c.Publication) > maxNameLength || strings.ContainsRune(c.Publication, 0) {
		add("use 1 to 63 bytes", "publication name %q is not one of PostgreSQL", c.Publication)
	}
	for _, t := range c.Tables {
		if _, err := parsePattern(t); err != nil {
			errs = append(errs, err)
		}
	}
	for i := range c.Columns {
		if err := c.Columns[i].Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	switch c.Unrepresentable {
	case "", UnrepresentableStop, UnrepresentableNull:
	default:
		add("use stop or null", "unknown choice %q for values that cannot be represented", c.Unrepresentable)
	}
	if c.SnapshotReaders < 0 || c.SnapshotReaders > maxSnapshotReaders {
		add(fmt.Sprintf("leave it out, or use 1 to %d", maxSnapshotReaders), "%d connections cannot read a snapshot", c.SnapshotReaders)
	}
	if c.StatusInterval < 0 {
		add("leave it out, or give a positive duration", "status interval %s is negative", c.StatusInterval)
	}
	return joinConfigErrors(errs)
}

// joinConfigErrors keeps the methods of Error, which errors.Join would hide from nobody
// but whose first hint alone would be found.
func joinConfigErrors(errs []error) error {
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	var hints []string
	for _, err := range errs {
		var e *Error
		if errors.As(err, &e) && e.hint != "" {
			hints = append(hints, e.hint)
		}
	}
	return &Error{errors.Join(errs...), strings.Join(hints, "; "), true, codeConfiguration}
}

// parseURL reads the connection URL. Its errors never quote it: it may hold a password.
func (c *Config) parseURL() (*pgx.ConnConfig, error) {
	const hint = "write postgres://user:password@host:5432/database, with %XX for special characters in the password"
	if c.URL == "" {
		return nil, misconfigured(hint, "the connection URL is empty")
	}
	conf, err := pgx.ParseConfig(c.URL)
	if err != nil { // what it quotes of the URL is not always free of the password
		return nil, misconfigured(hint, "the connection URL cannot be read")
	}
	if conf.Database == "" {
		conf.Database = conf.User
	}
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = connectTimeout
	}
	return conf, nil
}

// pattern is one entry of Config.Tables.
type pattern struct {
	schema, name string
}

// parsePattern splits at the first dot: a schema's name with a dot in it needs a * there.
func parsePattern(text string) (pattern, error) {
	schema, name, ok := strings.Cut(text, ".")
	if !ok || schema == "" || name == "" {
		return pattern{}, misconfigured("write schema.table, with * for any characters", "table pattern %q has no schema", text)
	}
	return pattern{schema, name}, nil
}

// literal says that p names one table.
func (p pattern) literal() bool { return !strings.Contains(p.schema+p.name, "*") }

func (p pattern) matches(schema, name string) bool {
	return matchStars(p.schema, schema) && matchStars(p.name, name)
}

func (p pattern) String() string { return fmt.Sprintf("%s.%s", p.schema, p.name) }

// matchStars says whether s matches pattern, in which * stands for any characters.
func matchStars(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	last := parts[len(parts)-1]
	if !strings.HasPrefix(s, parts[0]) || len(s) < len(parts[0])+len(last) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(parts[0]) : len(s)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		_, rest, ok := strings.Cut(s, part)
		if !ok {
			return false
		}
		s = rest
	}
	return true
}

// patterns returns the patterns of the tables as they are now.
func (c *Config) patterns() []pattern {
	tables := c.Tables
	if c.TablesNow != nil {
		tables = c.TablesNow()
	}
	out := make([]pattern, 0, len(tables))
	for _, t := range tables {
		if p, err := parsePattern(t); err == nil {
			out = append(out, p)
		}
	}
	return out
}

func (c *Config) logger() *slog.Logger {
	if c.Log != nil {
		return c.Log
	}
	return slog.Default()
}
