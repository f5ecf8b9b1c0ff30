package postgres

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/capture"
)

// Exit codes that an Error asks for, see Error.Code.
const (
	codeRuntime       = 1
	codeConfiguration = 2
	codeEnvironment   = 3
)

// Error is an error of a source that says what it allows.
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
// 3 for its environment (the server, its settings, privileges), 1 for all else.
func (e *Error) Code() int { return e.code }

// Environment says that Code is 3.
func (e *Error) Environment() bool { return e.code == codeEnvironment }

// stop is a fatal error of the data or the log.
func stop(hint, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), hint, true, codeRuntime}
}

// misconfigured is a fatal error of what the configuration says.
func misconfigured(hint, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), hint, true, codeConfiguration}
}

// unfit is a fatal error of what the server has or allows.
func unfit(hint, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), hint, true, codeEnvironment}
}

// lostError is about log that cannot be read any more, whatever is mended: only a new epoch
// leads on.
type lostError struct{ what *Error }

// Error implements error.
func (e lostError) Error() string { return e.what.Error() }

// lost makes one.
func lost(hint, format string, args ...any) error {
	return lostError{&Error{fmt.Errorf(format, args...), hint, true, codeRuntime}}
}

// Unwrap returns what says all else.
func (e lostError) Unwrap() error { return e.what }

// Ways names the decision that leads on.
func (lostError) Ways() []capture.Way { return []capture.Way{{Flag: capture.WayEpoch}} }

// SQLSTATE codes that this package knows. Source: PostgreSQL's appendix "Error Codes".
const (
	stateInvalidPassword    = "28P01"
	stateInvalidAuth        = "28000"
	stateNoDatabase         = "3D000"
	stateNoPrivilege        = "42501"
	stateTooManyConnections = "53300"
	stateCanceled           = "57014"
	stateLockTimeout        = "55P03"
	stateReadOnly           = "25006"
	stateUndefinedObject    = "42704"
	stateDuplicateObject    = "42710"
	stateConfigLimit        = "53400"
	stateObjectInUse        = "55006"
	stateNotPrerequisite    = "55000"
	stateUndefinedFile      = "58P01"
	stateUntranslatable     = "22P05"
	stateUndefinedTable     = "42P01"
	stateFeatureNotForSrv   = "0A000"
	stateUndefinedSchema    = "3F000"
	stateWrongObject        = "42809"
)

// sqlState returns the SQLSTATE of a server's error, "" if err is none.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// withoutValues hides what the server says of a value that it cannot compute with: such
// messages quote it, and so do those of functions that raise one.
func withoutValues(err error) error {
	state := sqlState(err)
	if len(state) != 5 || state[:2] != "22" && state[:2] != "P0" {
		return err
	}
	return fmt.Errorf("the server cannot compute with a value (SQLSTATE %s; its own log says more)", state)
}

// connectError classifies why no connection came to be.
func connectError(what, user, database string, err error) error {
	err = fmt.Errorf("%s: %w", what, err)
	switch sqlState(err) {
	case stateInvalidPassword:
		return &Error{err, fmt.Sprintf("check the password of user %q", user), true, codeEnvironment}
	case stateInvalidAuth:
		return &Error{err, fmt.Sprintf("pg_hba.conf must have a line that lets user %q into database %q from here, and the user must be allowed to log in", user, database), true, codeEnvironment}
	case stateNoDatabase:
		return &Error{err, "the database in the connection URL must exist", true, codeEnvironment}
	case stateNoPrivilege:
		return &Error{err, fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION; (on a managed service, its own grant for replication), and GRANT CONNECT ON DATABASE %s TO %s;",
			quoteIdent(user), quoteIdent(database), quoteIdent(user)), true, codeEnvironment}
	case stateFeatureNotForSrv:
		return &Error{err, "connect to the server itself: a connection pooler cannot replicate", true, codeEnvironment}
	}
	return err
}

const (
	hintLeaveOut = "leave the table out of the capture, or change it"

	hintSelect         = "the user needs SELECT on the table, and EXECUTE on the functions of the publication's row filter; and if the table has row-level security, BYPASSRLS"
	hintUntranslatable = "a value has no form in UTF-8; correct the row, or leave the table out of the publication"
)

const hintPublication = "the publication must have existed when the changes were made; if it was dropped, changes since cannot be read, also not after it is created again"

// streamError classifies what the server said while it was sending the log.
func streamError(err *pgconn.PgError) error {
	wrapped := fmt.Errorf("read the log: %w", withoutValues(err))
	switch err.Code {
	case stateUndefinedObject:
		return lost(hintPublication, "%w", wrapped)
	case stateNotPrerequisite, stateUndefinedFile:
		return lost("the slot has lost the log that it needs", "%w", wrapped)
	case stateNoPrivilege:
		return &Error{wrapped, "", true, codeEnvironment}
	case stateUntranslatable:
		return &Error{wrapped, hintUntranslatable, true, codeRuntime}
	}
	return wrapped
}

// Errors of messages that break the protocol.
var (
	errTruncated = errors.New("the message ends too early")
	errNoNewRow  = errors.New("the message has no new row")
	errNoOldRow  = errors.New("the message has no old row")
)
