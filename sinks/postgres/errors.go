package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/sinks"
)

// Exit codes that an Error asks for, see Error.Code.
const (
	codeRuntime       = 1
	codeConfiguration = 2
	codeEnvironment   = 3
)

// Error is an error of a target that says what it allows.
type Error struct {
	err   error
	hint  string
	fatal bool
	code  int
}

// Error returns the message, without the hint.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Fatal says that trying again leads to the same error until somebody acts.
func (e *Error) Fatal() bool { return e.fatal }

// Hint says what an operator can do about it; it may be empty.
func (e *Error) Hint() string { return e.hint }

// Code is the exit code of a program that stops for this error: 2 for its configuration,
// 3 for its environment (the server, its privileges), 1 for all else.
func (e *Error) Code() int { return e.code }

// Cause is the SQLSTATE, "" if the server was not asked.
func (e *Error) Cause() string { return sqlState(e.err) }

// Environment says that Code is 3.
func (e *Error) Environment() bool { return e.code == codeEnvironment }

// stop is a fatal error of the data.
func stop(hint, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), hint, true, codeRuntime}
}

// ofRow is a fatal error of one row.
func ofRow(hint, format string, args ...any) error {
	return rowError{&Error{fmt.Errorf(format, args...), hint, true, codeRuntime}}
}

// rowError is about a row, and not about the table or the server: without that row the
// batch could be written.
type rowError struct{ what *Error }

// Error implements error.
func (e rowError) Error() string { return e.what.Error() }

// Unwrap gives what allows and says all else.
func (e rowError) Unwrap() error { return e.what }

// OfRow tells it from others.
func (rowError) OfRow() bool { return true }

// isOfRow says whether an error is about a row.
func isOfRow(err error) bool {
	var e rowError
	return errors.As(err, &e)
}

// gone is about rows that the target had: restoring them mends it, or filling it anew.
type gone struct{ what *Error }

// Error implements error.
func (e gone) Error() string { return e.what.Error() }

// Unwrap gives what allows and says all else.
func (e gone) Unwrap() error { return e.what }

// Ways names the decision that leads on.
func (gone) Ways() []sinks.Way { return []sinks.Way{{Flag: sinks.WayBeginning}} }

// misconfigured is a fatal error of what the configuration says.
func misconfigured(hint, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), hint, true, codeConfiguration}
}

// unfit is a fatal error of what the target has or allows.
func unfit(hint, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), hint, true, codeEnvironment}
}

// SQLSTATE codes that this package knows. Source: PostgreSQL's appendix "Error Codes".
const (
	stateInvalidPassword = "28P01"
	stateInvalidAuth     = "28000"
	stateNoDatabase      = "3D000"
	stateNoPrivilege     = "42501"
	stateReadOnly        = "25006"
	stateUniqueViolation = "23505"
	stateForeignKey      = "23503"
	stateNotNull         = "23502"
	stateCheck           = "23514"
	stateExclusion       = "23P01"
	stateNoSuchFeature   = "0A000"
	stateDatatype        = "42804"
	stateUndefinedColumn = "42703"
	stateUndefinedTable  = "42P01"
	stateTooLarge        = "54000"
	stateDiskFull        = "53100"
	stateLockTimeout     = "55P03"
	stateTooMany         = "53300"
)

// sqlState returns the SQLSTATE of a server's error, "" if err is none.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// connectError classifies why no connection came to be.
func connectError(cfg *pgconn.Config, err error) error {
	err = fmt.Errorf("connect to the target: %w", err)
	switch sqlState(err) {
	case stateInvalidPassword:
		return &Error{err, fmt.Sprintf("check the password of user %q", cfg.User), true, codeEnvironment}
	case stateInvalidAuth:
		return &Error{err, fmt.Sprintf("pg_hba.conf of the target must let user %q into database %q from here", cfg.User, cfg.Database), true, codeEnvironment}
	case stateNoDatabase:
		return &Error{err, fmt.Sprintf("create the target database: CREATE DATABASE %s;", quoteIdent(cfg.Database)), true, codeEnvironment}
	case stateNoPrivilege:
		return &Error{err, fmt.Sprintf("GRANT CONNECT ON DATABASE %s TO %s;", quoteIdent(cfg.Database), quoteIdent(cfg.User)), true, codeEnvironment}
	}
	return &Error{err, fmt.Sprintf("the target must be up and reachable at %s:%d; nothing is lost, it is tried again", cfg.Host, cfg.Port), false, codeEnvironment}
}

// refused says whether a constraint refused what was written: the order of the statements
// may be the reason.
func refused(err error) bool {
	switch sqlState(err) {
	case stateUniqueViolation, stateForeignKey, stateExclusion, stateNotNull, stateCheck:
		return true
	}
	return false
}

// copyColumn finds the column in the context of an error of COPY:
//
//	COPY tailrace_1, line 3, column amount: "x"
var copyColumn = regexp.MustCompile(`(?s)^COPY .*?, line \d+, column (.+?)(?:: .*)?$`)

// writeError classifies what the server said to a write. table is what was written to, as
// quoted SQL, "" if that is not one table.
func writeError(user, table string, err error) error {
	var pg *pgconn.PgError
	if err == nil || !errors.As(err, &pg) {
		return err
	}
	if pg.SchemaName != "" && pg.TableName != "" && !strings.HasPrefix(pg.SchemaName, "pg_temp") {
		table = quoteTable(pg.SchemaName, pg.TableName)
	}
	where := "write to the target"
	if table != "" {
		where = "write to " + table
	}
	column := pg.ColumnName
	if m := copyColumn.FindStringSubmatch(pg.Where); m != nil {
		column = m[1]
	}
	if column != "" {
		where += ", column " + quoteIdent(column)
	}
	wrapped := fmt.Errorf("%s: %w", where, err)
	switch {
	case pg.Code == stateNoPrivilege:
		return &Error{wrapped, privilegeHint(user, table), true, codeEnvironment}
	case pg.Code == stateReadOnly:
		return &Error{wrapped, "the target is read-only (a standby?): give the URL of the primary", true, codeEnvironment}
	case pg.Code == stateDiskFull, strings.HasPrefix(pg.Code, "53"), pg.Code == "58030":
		return &Error{wrapped, "the target has no room left (disk, memory or connections); nothing is lost, the batch is tried again", false, codeEnvironment}
	case pg.Code == stateUniqueViolation:
		return rowError{&Error{wrapped, "the target has a unique constraint that the source's rows do not keep: drop constraint " + quoteIdent(pg.ConstraintName) + ", or remove the row that stands in the way", true, codeRuntime}}
	case pg.Code == stateForeignKey:
		return rowError{&Error{wrapped, "capture the referenced table too, or drop the target's constraint " + quoteIdent(pg.ConstraintName) + ", or make it DEFERRABLE INITIALLY DEFERRED", true, codeRuntime}}
	case pg.Code == stateNotNull:
		return rowError{&Error{wrapped, "the target's column must allow null or have a default: ALTER TABLE " + table + " ALTER COLUMN " + quoteIdent(column) + " DROP NOT NULL;", true, codeRuntime}}
	case strings.HasPrefix(pg.Code, "23"):
		return rowError{&Error{wrapped, "the target has a constraint that the source's rows do not keep: " + quoteIdent(pg.ConstraintName), true, codeRuntime}}
	case strings.HasPrefix(pg.Code, "22"):
		return rowError{&Error{wrapped, typeHint(table, column), true, codeRuntime}}
	case pg.Code == stateDatatype:
		return &Error{wrapped, typeHint(table, column), true, codeRuntime}
	case pg.Code == stateTooLarge:
		return rowError{&Error{wrapped, "the row has a value that is too large for the target, as for an index: drop the index, or shorten the value in the source", true, codeRuntime}}
	case strings.HasPrefix(pg.Code, "P0"):
		return rowError{&Error{wrapped, "a trigger of the target refused the row; change or disable it", true, codeRuntime}}
	case pg.Code == stateNoSuchFeature:
		return &Error{wrapped, "the target cannot do this to this table; see the message", true, codeRuntime}
	}
	return wrapped
}

func privilegeHint(user, table string) string {
	if table == "" {
		return fmt.Sprintf("the user needs: GRANT CREATE, TEMPORARY ON DATABASE … TO %s;", quoteIdent(user))
	}
	return fmt.Sprintf("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON %s TO %s; to add columns it must own the table, to make tables it needs CREATE on their schema",
		table, quoteIdent(user))
}

func typeHint(table, column string) string {
	if table == "" || column == "" {
		return "the type of the target's column does not take the value: change it with ALTER TABLE … ALTER COLUMN … TYPE …"
	}
	return fmt.Sprintf("the type of the target's column does not take the value: ALTER TABLE %s ALTER COLUMN %s TYPE …;", table, quoteIdent(column))
}
