package postgres

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
)

const (
	// smallSenderTimeout is below what a pause of either side may well last.
	smallSenderTimeout = 10 * time.Second
	// smallWALKeep is what a busy server may write in minutes.
	smallWALKeep = 1 << 30
	// shortStop is for how long a capture may be stopped at a weekend, say.
	shortStop = 24 * time.Hour
)

// serverFacts are settings of a server, and how much of them is used.
type serverFacts struct {
	version                int // as server_version_num
	level                  string
	slots, slotsUsed       int
	senders, sendersUsed   int
	senderTimeout          time.Duration // 0: none
	keep                   int64         // bytes that a slot may keep at least; less than 0: no bound
	idle                   time.Duration // after which an idle slot is invalidated; 0: never
	rate                   float64       // bytes of log a second, on average; 0: not known
	encoding               string
	standby                bool
	syncCommit, syncSource string // of a session of our role
}

// readServer reads the facts. Settings that a server does not know have their zero value.
func readServer(ctx context.Context, sql *pgx.Conn) (f serverFacts, err error) {
	const query = `SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
		current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots)::int,
		current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication)::int,
		(SELECT setting::int8 FROM pg_settings WHERE name = 'wal_sender_timeout'),
		(SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
		coalesce((SELECT setting::int8 * CASE unit WHEN 'min' THEN 60 ELSE 1 END FROM pg_settings WHERE name = 'idle_replication_slot_timeout'), 0),
		coalesce((SELECT (wal_bytes / nullif(extract(epoch FROM now() - stats_reset), 0))::float8
			FROM pg_stat_wal WHERE now() - stats_reset > '10 min'), 0),
		current_setting('server_encoding'), pg_is_in_recovery(),
		(SELECT setting FROM pg_settings WHERE name = 'synchronous_commit'), (SELECT source FROM pg_settings WHERE name = 'synchronous_commit')`
	var timeout, keep, idle int64
	err = sql.QueryRow(ctx, query).Scan(&f.version, &f.level, &f.slots, &f.slotsUsed, &f.senders, &f.sendersUsed,
		&timeout, &keep, &idle, &f.rate, &f.encoding, &f.standby, &f.syncCommit, &f.syncSource)
	if err != nil {
		return f, fmt.Errorf("read the server's settings: %w", err)
	}
	f.senderTimeout, f.keep, f.idle = time.Duration(timeout)*time.Millisecond, keep, time.Duration(idle)*time.Second
	if keep >= 0 {
		f.keep = keep << 20
	}
	return f, nil
}

// fitServer checks what the whole server must be like.
func fitServer(ctx context.Context, sql *pgx.Conn) error {
	const query = `SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
		current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int`
	var f serverFacts
	if err := sql.QueryRow(ctx, query).Scan(&f.version, &f.level, &f.slots, &f.senders); err != nil {
		return fmt.Errorf("read the server's settings: %w", err)
	}
	for _, fits := range []func() error{f.fitVersion, f.fitLevel, f.fitLimits} {
		if err := fits(); err != nil {
			return err
		}
	}
	return nil
}

func (f *serverFacts) fitVersion() error {
	if f.version < minServerVersion {
		return unfit("PostgreSQL 14 to 18 are supported", "the server is PostgreSQL %d", f.version/10000)
	}
	return nil
}

func (f *serverFacts) fitLevel() error {
	if f.level != "logical" {
		return unfit("ALTER SYSTEM SET wal_level = logical; and restart the server (on a managed service, its own setting for logical replication)",
			"wal_level is %q: the log does not hold what is needed", f.level)
	}
	return nil
}

func (f *serverFacts) fitLimits() error {
	if f.slots == 0 || f.senders == 0 {
		return unfit("set max_replication_slots and max_wal_senders to 10 or so, and restart the server",
			"max_replication_slots is %d, max_wal_senders is %d", f.slots, f.senders)
	}
	return nil
}

// checkServer looks at the server's settings.
func (c *checker) checkServer(ctx context.Context, sql *pgx.Conn) error {
	f, err := readServer(ctx, sql)
	if err != nil {
		return err
	}
	c.server = f
	switch err := f.fitVersion(); {
	case err != nil:
		c.fail(CodeVersion, "", err)
	case f.version >= maxServerVersion:
		c.warn(CodeVersion, "", fmt.Sprintf("the server is PostgreSQL %d, newer than this program was tested with", f.version/10000), "look for a newer tailrace")
	default:
		c.ok(CodeVersion, "", "PostgreSQL %d.%d", f.version/10000, f.version%10000)
	}
	if err := f.fitLevel(); err != nil {
		c.add(capture.Finding{Code: CodeWALLevel, Severity: capture.SeverityError, Found: err.Error(), Mend: hintOf(err),
			SQL: []string{"ALTER SYSTEM SET wal_level = 'logical'"}, Restart: true})
	} else {
		c.ok(CodeWALLevel, "", "wal_level is logical")
	}
	if f.encoding == "SQL_ASCII" {
		c.warn(CodeEncoding, "", "the database's encoding is SQL_ASCII: a value that is not UTF-8 would stop the capture",
			"find such values before (convert_from(convert_to(v, 'SQL_ASCII'), 'UTF8') fails on them), or move to a database with ENCODING 'UTF8'")
	}
	c.checkStandby()
	c.checkTimeouts()
	return c.checkSyncCommit(ctx, sql)
}

func (c *checker) checkStandby() {
	switch {
	case !c.server.standby:
	case c.server.version < 160000:
		c.add(capture.Finding{Code: CodeStandby, Severity: capture.SeverityError, Setting: "url",
			Found: "the server is a standby, which can decode its log since PostgreSQL 16 only", Mend: "give the URL of the primary"})
	default:
		c.warn(CodeStandby, "url", "the server is a standby: the publication must be made on the primary, and a slot waits until the primary logs its running transactions",
			"create the publication on the primary and set create_publication: false; set hot_standby_feedback = on here")
	}
}

const reload = "SELECT pg_reload_conf()"

// checkTimeouts looks at the settings that cut off a reader, or its slot.
func (c *checker) checkTimeouts() {
	f := &c.server
	setTimeout := []string{"ALTER SYSTEM SET wal_sender_timeout = '60s'", reload}
	switch {
	case f.senderTimeout == 0:
		c.warn(CodeSenderTimeout, "", "wal_sender_timeout is 0: the slot of a capture whose machine has died stays in use until TCP notices",
			"set it to 60s", setTimeout...)
	case f.senderTimeout < smallSenderTimeout:
		c.warn(CodeSenderTimeout, "", fmt.Sprintf("wal_sender_timeout is %s: a pause of the machine or the network ends the connection", f.senderTimeout),
			"set it to 60s", setTimeout...)
	default:
		c.ok(CodeSenderTimeout, "", "wal_sender_timeout is %s", f.senderTimeout)
	}
	c.checkWALKeep()
	if f.idle > 0 {
		c.warn(CodeIdleTimeout, "", fmt.Sprintf("idle_replication_slot_timeout is %s: the slot of a capture that stands still for so long is lost", f.idle),
			"set it to 0, or longer than any stop of the capture", "ALTER SYSTEM SET idle_replication_slot_timeout = 0", reload)
	}
}

// checkWALKeep weighs max_slot_wal_keep_size by how fast the log grows.
func (c *checker) checkWALKeep() {
	f := &c.server
	if f.keep < 0 {
		c.ok(CodeWALKeep, "", "max_slot_wal_keep_size has no bound: the log is kept for a stopped capture until the disk is full; alert on it")
		return
	}
	lasts := time.Duration(0)
	found := fmt.Sprintf("max_slot_wal_keep_size is %s", sizeText(f.keep))
	if f.rate > 0 {
		lasts = time.Duration(float64(f.keep) / f.rate * float64(time.Second))
		found += fmt.Sprintf(", which lasts for %s at the average rate of the log", lasts.Round(time.Minute))
	}
	if f.keep >= smallWALKeep && (f.rate == 0 || lasts >= shortStop) {
		c.ok(CodeWALKeep, "", "%s", found)
		return
	}
	c.warn(CodeWALKeep, "", found+": the slot of a capture that is stopped for longer is lost, and what changed meanwhile with it",
		"raise it to what the disk can hold, or take the bound away and alert on the disk", "ALTER SYSTEM SET max_slot_wal_keep_size = -1", reload)
}

// checkSyncCommit looks for sessions that commit asynchronously: what they commit can be
// read 0.2 to 0.4 s later, once it is flushed, and is lost if the server crashes before.
func (c *checker) checkSyncCommit(ctx context.Context, sql *pgx.Conn) error {
	const query = `SELECT coalesce(quote_ident(r.rolname), ''), coalesce(quote_ident(d.datname), '')
		FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
		WHERE 'synchronous_commit=off' = ANY (s.setconfig) AND (d.oid IS NULL OR d.datname = current_database()) ORDER BY 1, 2`
	var where, mends []string
	var role, database string
	rows, err := sql.Query(ctx, query)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&role, &database}, func() error {
			place, mend := syncCommitPlace(role, database)
			where, mends = append(where, place), append(mends, mend)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read the settings of roles and databases: %w", err)
	}
	if c.server.syncCommit == "off" && len(mends) == 0 {
		where, mends = []string{"the server"}, []string{"ALTER SYSTEM SET synchronous_commit = 'on'", reload}
	}
	if len(mends) == 0 {
		c.ok(CodeSyncCommit, "", "synchronous_commit is %s", c.server.syncCommit)
		return nil
	}
	c.warn(CodeSyncCommit, "", "synchronous_commit is off for "+strings.Join(where, ", ")+": changes come 0.2 to 0.4 s later, and the database may lose the last ones in a crash",
		"set it to on, unless that is wanted", mends...)
	return nil
}

// syncCommitPlace says where a setting of a role or a database stands, and how it goes
// away. Both names are quoted; "" is any.
func syncCommitPlace(role, database string) (place, mend string) {
	switch {
	case role == "" && database == "":
		return "all roles", "ALTER ROLE ALL RESET synchronous_commit"
	case role == "":
		return "database " + database, "ALTER DATABASE " + database + " RESET synchronous_commit"
	case database == "":
		return "role " + role, "ALTER ROLE " + role + " RESET synchronous_commit"
	}
	return "role " + role + " in database " + database, "ALTER ROLE " + role + " IN DATABASE " + database + " RESET synchronous_commit"
}

// localHost says whether what is sent to host does not leave this machine.
func localHost(host string) bool {
	return host == "" || host == "localhost" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || net.ParseIP(host).IsLoopback()
}

// sizeText writes a number of bytes as people read it.
func sizeText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if v == float64(int64(v)) {
		return fmt.Sprintf("%d %s", int64(v), units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
