package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tailrace/tailrace/capture"
)

// Codes of what Check finds.
const (
	CodeConnect         = "PG_CONNECT"            // no connection, or no answer
	CodeAuth            = "PG_AUTH"               // the password is refused
	CodeLogin           = "PG_LOGIN"              // pg_hba.conf or the role do not let it in
	CodeDatabase        = "PG_DATABASE"           // there is no such database
	CodeGrantConnect    = "PG_GRANT_CONNECT"      // no CONNECT on the database
	CodeConnections     = "PG_CONNECTIONS"        // no connection is free
	CodeTLS             = "PG_TLS"                // the password and the rows cross a network in clear
	CodeVersion         = "PG_VERSION"            // older than 14, newer than 18
	CodeEncoding        = "PG_ENCODING"           // text without an encoding
	CodeWALLevel        = "PG_WAL_LEVEL"          // the log does not hold what is needed
	CodeStandby         = "PG_STANDBY"            // the server is a standby
	CodeSlots           = "PG_SLOTS"              // no replication slot is free
	CodeSenders         = "PG_SENDERS"            // no walsender is free
	CodeReplication     = "PG_REPLICATION"        // no REPLICATION connection
	CodeSlotCreate      = "PG_SLOT_CREATE"        // a temporary slot could not be made
	CodeSlotWait        = "PG_SLOT_WAIT"          // a slot waits for a transaction that does not end
	CodeSlotLeft        = "PG_SLOT_LEFT"          // the temporary slot could not be dropped
	CodeSlotForeign     = "PG_SLOT_FOREIGN"       // the capture's slot is not one of its kind
	CodeSlotLost        = "PG_SLOT_LOST"          // the server invalidated the capture's slot
	CodeSlotUnreserved  = "PG_SLOT_UNRESERVED"    // the server is about to do so
	CodeSlotRetains     = "PG_SLOT_RETAINS"       // nobody reads the capture's slot, and it keeps much log
	CodeSlot            = "PG_SLOT"               // the capture's slot as it is
	CodeSlotPublication = "PG_SLOT_PUBLICATION"   // the capture's slot is there, its publication is not
	CodePublication     = "PG_PUBLICATION"        // the publication is missing, and may not be made
	CodePublicationSet  = "PG_PUBLICATION_TABLES" // it holds other tables, and may not be altered
	CodePublicationUsed = "PG_PUBLICATION_LOCKED" // a lock is in the way
	CodeTables          = "PG_TABLES"             // a table that is named is not there
	CodeNoKey           = "PG_NO_KEY"             // a table without a key
	CodeSelect          = "PG_SELECT"             // no SELECT on a table
	CodeRowSecurity     = "PG_ROW_SECURITY"       // rows are hidden
	CodeRead            = "PG_READ"               // a table could not be read for another reason
	CodeSyncCommit      = "PG_SYNCHRONOUS_COMMIT" // synchronous_commit is off
	CodeSenderTimeout   = "PG_WAL_SENDER_TIMEOUT" // wal_sender_timeout is small, or none
	CodeWALKeep         = "PG_WAL_KEEP"           // max_slot_wal_keep_size is small
	CodeIdleTimeout     = "PG_SLOT_IDLE_TIMEOUT"  // idle_replication_slot_timeout is set
	CodeSuperuser       = "PG_ROLE_SUPERUSER"     // excess rights, one by one
	CodeCreateDB        = "PG_ROLE_CREATEDB"
	CodeCreateRole      = "PG_ROLE_CREATEROLE"
	CodeBypassRLS       = "PG_ROLE_BYPASSRLS"
	CodeMember          = "PG_ROLE_MEMBER"
	CodeOwner           = "PG_ROLE_OWNER"
	CodeWrites          = "PG_ROLE_WRITES"
	CodeDecode          = "PG_DECODE"      // a message written to the log came, or did not come, out of a slot
	CodeUnfinished      = "PG_INTERRUPTED" // the check did not come to its end
)

// minServerVersion is server_version_num of PostgreSQL 14, maxServerVersion that of the
// first one that this package was not tested with.
const (
	minServerVersion = 140000
	maxServerVersion = 190000
)

// cleanTime is how long taking back what a check made may take, after its context's end.
const cleanTime = 10 * time.Second

// checker collects what one check finds.
type checker struct {
	source  *Source
	options capture.CheckOptions
	out     capture.Checked
	server  serverFacts
	slot    *slotState // the capture's own; nil: there is none
	tables  []*readTable
}

// Check tries every precondition of a capture with cfg, and leaves nothing behind: what it
// makes is in transactions that are rolled back, and in a temporary slot. It does not touch
// the capture's slot, so the capture may run. A precondition that is not met is a finding;
// the error is one of the configuration.
func Check(ctx context.Context, cfg Config, o capture.CheckOptions) (capture.Checked, error) {
	cfg.Log, cfg.Registerer = slog.New(slog.DiscardHandler), nil
	src, err := New(cfg)
	if err != nil {
		return capture.Checked{}, err
	}
	c := &checker{source: src, options: o}
	c.encryption()
	if o.Offline {
		return c.out, nil
	}
	sql, err := cfg.connectChecking(ctx)
	if err != nil {
		c.refused(err)
		return c.out, nil
	}
	defer closeSQL(ctx, sql)
	c.ok(CodeConnect, "url", "connected to database %s as %s", quoteIdent(sql.Config().Database), quoteIdent(cfg.user()))
	c.all(ctx, sql)
	return c.out, nil
}

// all runs the checks that need a connection, and says if they did not come to an end.
func (c *checker) all(ctx context.Context, sql *pgx.Conn) {
	for _, check := range []func(context.Context, *pgx.Conn) error{
		c.checkServer, c.checkOwnSlot, c.checkNewSlot, c.checkTables, c.checkRole,
	} {
		if err := check(ctx, sql); err != nil {
			c.fail(CodeUnfinished, "", err)
			return
		}
	}
}

func (c *checker) add(f capture.Finding) { c.out.Findings = append(c.out.Findings, f) }

func (c *checker) ok(code, setting, format string, args ...any) {
	c.add(capture.Finding{Code: code, Severity: capture.SeverityOK, Setting: setting, Found: fmt.Sprintf(format, args...)})
}

// fail adds an error of a step as a finding; its hint is the mend.
func (c *checker) fail(code, setting string, err error, sql ...string) {
	c.add(capture.Finding{Code: code, Severity: capture.SeverityError, Setting: setting, Found: err.Error(), Mend: hintOf(err), SQL: sql})
}

// warn adds a warning; mend says what to do.
func (c *checker) warn(code, setting, found, mend string, sql ...string) {
	c.add(capture.Finding{Code: code, Severity: capture.SeverityWarning, Setting: setting, Found: found, Mend: mend, SQL: sql})
}

func hintOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.hint
	}
	return ""
}

// connectChecking connects as connectSQL does, but takes synchronous_commit as the server
// gives it, and does not wait long for locks.
func (c *Config) connectChecking(ctx context.Context) (*pgx.Conn, error) {
	conf, err := c.parseURL()
	if err != nil {
		return nil, err
	}
	c.setParams(&conf.Config)
	delete(conf.RuntimeParams, "synchronous_commit")
	maps.Copy(conf.RuntimeParams, map[string]string{"statement_timeout": "30s", "lock_timeout": "3s"})
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, connectError("connect to PostgreSQL", conf.User, conf.Database, err)
	}
	return conn, nil
}

func closeSQL(ctx context.Context, sql *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	_ = sql.Close(ctx) // the server rolls back what is open when it sees the end
	<-sql.PgConn().CleanupDone()
}

// encryption warns of a connection over a network without TLS. It connects to nothing.
func (c *checker) encryption() {
	conf, err := c.source.cfg.parseURL()
	if err != nil || localHost(conf.Host) {
		return
	}
	plain := conf.TLSConfig == nil
	for _, f := range conf.Fallbacks {
		plain = plain || f.TLSConfig == nil
	}
	if plain {
		c.warn(CodeTLS, "url", fmt.Sprintf("the connection to %s may be without TLS: password and rows can be read on the way", conf.Host),
			"add sslmode=verify-full (and sslrootcert=FILE) to the URL")
	}
}

// refused adds why no ordinary connection came to be.
func (c *checker) refused(err error) {
	user, database := quoteIdent(c.source.cfg.user()), ""
	if conf, err := c.source.cfg.parseURL(); err == nil {
		database = quoteIdent(conf.Database)
	}
	code, hint := CodeConnect, "the server must be up and reachable from here: check host, port and firewall"
	var sql []string
	switch sqlState(err) {
	case stateInvalidPassword:
		code = CodeAuth
	case stateInvalidAuth:
		code = CodeLogin
		if roleRefused(err) {
			sql = []string{"ALTER ROLE " + user + " LOGIN"}
		}
	case stateNoDatabase:
		code = CodeDatabase
	case stateNoPrivilege:
		code, sql = CodeGrantConnect, []string{"GRANT CONNECT ON DATABASE " + database + " TO " + user}
		err = &Error{err, sql[0] + ";", true, codeEnvironment}
	case stateTooManyConnections:
		code = CodeConnections
		hint = "end connections that nobody needs, or raise max_connections, or the limit of the role: ALTER ROLE " + user + " CONNECTION LIMIT -1;"
		if roleLimit(err) {
			sql = []string{"ALTER ROLE " + user + " CONNECTION LIMIT -1"}
		}
	}
	if hintOf(err) != "" {
		hint = hintOf(err)
	}
	c.add(capture.Finding{Code: code, Severity: capture.SeverityError, Setting: "url", Found: err.Error(), Mend: hint, SQL: sql})
}

// roleRefused says whether it was the role's own setting, not pg_hba.conf, that refused a
// login. The names of the server's functions are the same in every language.
func roleRefused(err error) bool { return routine(err) == "InitializeSessionUserId" }

// roleLimit says whether the role's own limit of connections was reached.
func roleLimit(err error) bool { return routine(err) == "InitializeSessionUserId" }

func routine(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Routine
	}
	return ""
}
