package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/sinks"
)

// Codes of what Check finds.
const (
	CodeConnect      = "TARGET_CONNECT"       // no connection, or no answer
	CodeAuth         = "TARGET_AUTH"          // the password is refused
	CodeLogin        = "TARGET_LOGIN"         // pg_hba.conf or the role do not let it in
	CodeDatabase     = "TARGET_DATABASE"      // there is no such database
	CodeGrantConnect = "TARGET_GRANT_CONNECT" // no CONNECT on the database
	CodeConnections  = "TARGET_CONNECTIONS"   // no connection is free
	CodeTLS          = "TARGET_TLS"           // the password and the rows cross a network in clear
	CodeVersion      = "TARGET_VERSION"       // older than 14, newer than 18
	CodeEncoding     = "TARGET_ENCODING"      // not every character has a form in the database
	CodeReadOnly     = "TARGET_READ_ONLY"     // nothing can be written
	CodePosition     = "TARGET_POSITION"      // the sink cannot keep its position
	CodeTemporary    = "TARGET_TEMPORARY"     // no temporary tables
	CodeCreate       = "TARGET_CREATE"        // no table can be made and written in a schema
	CodeTable        = "TARGET_TABLE"         // a table that is there cannot be written
	CodeKey          = "TARGET_KEY"           // a table that is there has no unique constraint
	CodeRowSecurity  = "TARGET_ROW_SECURITY"  // row-level security holds for the sink
	CodeSuperuser    = "TARGET_ROLE_SUPERUSER"
	CodeCreateDB     = "TARGET_ROLE_CREATEDB"
	CodeCreateRole   = "TARGET_ROLE_CREATEROLE"
	CodeReplication  = "TARGET_ROLE_REPLICATION"
	CodeMember       = "TARGET_ROLE_MEMBER"
	CodeUnfinished   = "TARGET_INTERRUPTED" // the check did not come to its end
)

// minVersion and maxVersion are server_version_num of PostgreSQL 14, and of the first one
// that this package was not tested with.
const (
	minVersion = 140000
	maxVersion = 190000
)

// checker collects what one check finds.
type checker struct {
	cfg      Config
	to       *pgx.ConnConfig
	tables   []sinks.TableRef
	findings []sinks.Finding
}

// Check tries what a sink with cfg needs of its target, and leaves nothing behind: all that
// it writes is in a transaction that is rolled back. It raises no fence, so the sink may
// run. A precondition that is not met is a finding; the error is one of the configuration.
func Check(ctx context.Context, cfg Config, o sinks.CheckOptions) ([]sinks.Finding, error) {
	to, err := cfg.connection()
	if err != nil {
		return nil, err
	}
	to.RuntimeParams["application_name"] = "tailrace doctor"
	to.RuntimeParams["lock_timeout"], to.RuntimeParams["statement_timeout"] = "3s", "30s"
	c := &checker{cfg: cfg, to: to, tables: o.Tables}
	c.encryption()
	if o.Offline {
		return c.findings, nil
	}
	conn, err := pgx.ConnectConfig(ctx, to)
	if err != nil {
		c.refused(connectError(&to.Config, err))
		return c.findings, nil
	}
	defer closeConn(ctx, conn)
	c.ok(CodeConnect, "url", "connected to database %s as %s", quoteIdent(to.Database), quoteIdent(to.User))
	if err := c.all(ctx, conn); err != nil {
		c.fail(CodeUnfinished, "", err)
	}
	return c.findings, nil
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // the server rolls back what is open when it sees the end
	<-conn.PgConn().CleanupDone()
}

func (c *checker) all(ctx context.Context, conn *pgx.Conn) error {
	readOnly, err := c.checkServer(ctx, conn)
	if err != nil {
		return err
	}
	if !readOnly {
		if err := c.checkWrites(ctx, conn); err != nil {
			return err
		}
	}
	return c.checkRole(ctx, conn)
}

func (c *checker) add(f sinks.Finding) { c.findings = append(c.findings, f) }

func (c *checker) ok(code, setting, format string, args ...any) {
	c.add(sinks.Finding{Code: code, Severity: sinks.SeverityOK, Setting: setting, Found: fmt.Sprintf(format, args...)})
}

// fail adds an error of a step as a finding; its hint is the mend.
func (c *checker) fail(code, setting string, err error, sql ...string) {
	hint := ""
	var e *Error
	if errors.As(err, &e) {
		hint = e.hint
	}
	if hint == "" {
		hint = strings.Join(sql, "; ")
	}
	c.add(sinks.Finding{Code: code, Severity: sinks.SeverityError, Setting: setting, Found: err.Error(), Mend: hint, SQL: sql})
}

func (c *checker) warn(code, setting, found, mend string, sql ...string) {
	c.add(sinks.Finding{Code: code, Severity: sinks.SeverityWarning, Setting: setting, Found: found, Mend: mend, SQL: sql})
}

// encryption warns of a connection over a network without TLS. It connects to nothing.
func (c *checker) encryption() {
	host := c.to.Host
	if host == "" || host == "localhost" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || net.ParseIP(host).IsLoopback() {
		return
	}
	plain := c.to.TLSConfig == nil || slices.ContainsFunc(c.to.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.TLSConfig == nil })
	if plain {
		c.warn(CodeTLS, "url", fmt.Sprintf("the connection to %s may be without TLS: password and rows can be read on the way", host),
			"add sslmode=verify-full (and sslrootcert=FILE) to the URL")
	}
}

// refused adds why no connection came to be.
func (c *checker) refused(err error) {
	user, database := quoteIdent(c.to.User), quoteIdent(c.to.Database)
	var pg *pgconn.PgError
	ofRole := errors.As(err, &pg) && pg.Routine == "InitializeSessionUserId" // the role's own setting, not the server's
	switch sqlState(err) {
	case stateInvalidPassword:
		c.fail(CodeAuth, "url", err)
	case stateInvalidAuth:
		if ofRole {
			c.fail(CodeLogin, "url", err, "ALTER ROLE "+user+" LOGIN")
			return
		}
		c.fail(CodeLogin, "url", err)
	case stateNoDatabase:
		c.fail(CodeDatabase, "url", err)
	case stateNoPrivilege:
		c.fail(CodeGrantConnect, "url", err, "GRANT CONNECT ON DATABASE "+database+" TO "+user)
	case stateTooMany:
		if ofRole {
			c.fail(CodeConnections, "url", err, "ALTER ROLE "+user+" CONNECTION LIMIT -1")
			return
		}
		c.fail(CodeConnections, "url", err)
	default:
		c.fail(CodeConnect, "url", err)
	}
}

// checkServer looks at the server, and says whether nothing can be written.
func (c *checker) checkServer(ctx context.Context, conn *pgx.Conn) (readOnly bool, err error) {
	var version int
	var encoding string
	var standby bool
	const query = `select current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(), current_setting('transaction_read_only')::bool`
	if err := conn.QueryRow(ctx, query).Scan(&version, &encoding, &standby, &readOnly); err != nil {
		return false, fmt.Errorf("read the server's settings: %w", err)
	}
	if version < minVersion || version >= maxVersion {
		c.warn(CodeVersion, "url", fmt.Sprintf("the server is PostgreSQL %d; this program was tested with 14 to 18", version/10000), "use one of these")
	} else {
		c.ok(CodeVersion, "url", "PostgreSQL %d.%d", version/10000, version%10000)
	}
	if encoding != "UTF8" {
		c.warn(CodeEncoding, "url", fmt.Sprintf("the database's encoding is %s: a character that it does not have would stop the sink", encoding),
			"apply to a database with ENCODING 'UTF8'")
	}
	switch {
	case standby:
		c.fail(CodeReadOnly, "url", unfit("give the URL of the primary", "the target is a standby, which takes no writes"))
	case readOnly:
		mend, err := c.readOnlyMend(ctx, conn)
		if err != nil {
			return readOnly, err
		}
		c.fail(CodeReadOnly, "url", unfit("let the role write: "+strings.Join(mend, "; "), "transactions are read-only (default_transaction_read_only)"), mend...)
	}
	return readOnly, nil
}

// readOnlyMend returns what takes default_transaction_read_only away where it is set.
func (c *checker) readOnlyMend(ctx context.Context, conn *pgx.Conn) (mend []string, err error) {
	const query = `select case when r.oid is null and d.oid is null then 'ALTER ROLE ALL' when r.oid is null then format('ALTER DATABASE %I', d.datname)
		when d.oid is null then format('ALTER ROLE %I', r.rolname) else format('ALTER ROLE %I IN DATABASE %I', r.rolname, d.datname) end || ' RESET default_transaction_read_only'
		from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase
		where 'default_transaction_read_only=on' = any (s.setconfig) and coalesce(r.rolname, current_user) = current_user and coalesce(d.datname, current_database()) = current_database()`
	rows, err := conn.Query(ctx, query)
	if err == nil {
		mend, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings of roles and databases: %w", err)
	}
	if len(mend) == 0 {
		mend = []string{"ALTER SYSTEM SET default_transaction_read_only = off", "SELECT pg_reload_conf()"}
	}
	return mend, nil
}

const scratchPrefix = "tailrace_doctor_"

// scratchName returns a name that nothing else has.
func scratchName() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return scratchPrefix + hex.EncodeToString(b[:])
}

// rollbackTime is how long the rollback may take, after the context's end.
const rollbackTime = 10 * time.Second

// checkWrites writes as the sink would, in a transaction that is rolled back.
func (c *checker) checkWrites(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
		defer cancel()
		_ = tx.Rollback(ctx) // if it cannot, the end of the connection does
	}()
	if err := c.checkPosition(ctx, tx); err != nil {
		return err
	}
	if err := c.checkTemporary(ctx, tx); err != nil {
		return err
	}
	return c.checkTables(ctx, tx)
}

// try runs fn under a savepoint. why is its error; err says that nothing more can be tried.
func try(ctx context.Context, tx pgx.Tx, fn func(pgx.Tx) error) (why, err error) {
	why = pgx.BeginFunc(ctx, tx, fn)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case why != nil && sqlState(why) == "":
		return nil, why
	}
	return why, nil
}

// checkPosition makes the table of positions, if it is not there, and a fence of a sink
// that does not exist.
func (c *checker) checkPosition(ctx context.Context, tx pgx.Tx) error {
	name := scratchName()
	why, err := try(ctx, tx, func(tx pgx.Tx) error {
		if err := ensurePositions(ctx, tx); err != nil {
			return err
		}
		_, err := raise(ctx, tx, name, []sinks.Partition{{Topic: name}})
		return err
	})
	if err != nil {
		return err
	}
	if why == nil {
		c.ok(CodePosition, "", `the sink's position was written to tailrace."position"`)
		return nil
	}
	var schema, table bool
	const query = `select exists (select from pg_catalog.pg_namespace where nspname = 'tailrace'),
		exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'tailrace' and c.relname = 'position')`
	if err := tx.QueryRow(ctx, query).Scan(&schema, &table); err != nil {
		return fmt.Errorf("look for schema tailrace: %w", err)
	}
	user := quoteIdent(c.to.User)
	mend := []string{"CREATE SCHEMA tailrace AUTHORIZATION " + user}
	if schema {
		mend = []string{"GRANT USAGE, CREATE ON SCHEMA tailrace TO " + user}
	}
	if table {
		mend = append(mend, `GRANT SELECT, INSERT, UPDATE, DELETE ON tailrace."position" TO `+user)
	}
	c.fail(CodePosition, "", fmt.Errorf("keep the sink's position: %w", why), mend...)
	return nil
}

func (c *checker) checkTemporary(ctx context.Context, tx pgx.Tx) error {
	why, err := try(ctx, tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "create temporary table "+quoteIdent(scratchName())+" (id int)")
		return err
	})
	switch {
	case err != nil:
		return err
	case why != nil:
		c.fail(CodeTemporary, "", fmt.Errorf("make a temporary table: %w", why),
			fmt.Sprintf("GRANT TEMPORARY ON DATABASE %s TO %s", quoteIdent(c.to.Database), quoteIdent(c.to.User)))
	default:
		c.ok(CodeTemporary, "", "made a temporary table")
	}
	return nil
}
