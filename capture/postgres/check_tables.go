package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
)

const (
	// readAtMost is of how many tables a row is read if the check is not deep. What may be
	// read is looked up for all of them.
	readAtMost = 20
	// namedAtMost is how many tables a finding names.
	namedAtMost = 10
)

// hintLocked is the mend of a lock that another session holds.
const hintLocked = "another session holds a lock on the table, as ALTER TABLE does: try again when it has ended; SELECT pid, query FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock')"

// checkTables makes the publication as a start would, in a transaction that is rolled back,
// and reads from its tables there.
func (c *checker) checkTables(ctx context.Context, sql *pgx.Conn) error {
	if err := execute(ctx, sql, "BEGIN"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer c.rollback(ctx, sql)
	fitted, err := c.checkPublication(ctx, sql)
	if err != nil {
		return err
	}
	if err := c.findTables(ctx, sql, fitted); err != nil {
		return err
	}
	for _, t := range c.tables {
		c.out.Tables = append(c.out.Tables, capture.TableRef{Schema: t.schema, Name: t.name})
	}
	if err := c.checkKeys(ctx, sql, fitted); err != nil {
		return err
	}
	return c.readTables(ctx, sql)
}

func execute(ctx context.Context, sql *pgx.Conn, statement string) error {
	_, err := sql.PgConn().Exec(ctx, statement).ReadAll()
	return err
}

// rollback takes back what the check did. If it cannot, the end of the connection does.
func (c *checker) rollback(ctx context.Context, sql *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	_ = execute(ctx, sql, "ROLLBACK")
}

// checkPublication says whether the transaction has the publication as the configuration
// wants it.
func (c *checker) checkPublication(ctx context.Context, sql *pgx.Conn) (fitted bool, err error) {
	if err := execute(ctx, sql, "SAVEPOINT publication"); err != nil {
		return false, fmt.Errorf("make a savepoint: %w", err)
	}
	s := c.source
	err = s.fitPublicationOn(ctx, sql)
	if err == nil {
		c.ok(CodePublication, "publication", "publication %q is there, or could be made, with the tables of the configuration", s.cfg.Publication)
		return true, nil
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if back := execute(ctx, sql, "ROLLBACK TO SAVEPOINT publication"); back != nil {
		return false, errors.Join(err, back)
	}
	f := capture.Finding{Severity: capture.SeverityError, Found: err.Error(), Mend: hintOf(err)}
	if sqlState(err) == stateLockTimeout {
		f.Mend = hintLocked
	}
	f.Code, f.Setting, f.SQL, err = c.publicationCode(ctx, sql, err)
	if err == nil {
		c.add(f)
	}
	return false, err
}

// publicationCode says what is wrong with the publication, and which statement mends it.
func (c *checker) publicationCode(ctx context.Context, sql *pgx.Conn, cause error) (code, setting string, mend []string, err error) {
	s := c.source
	var e *Error
	switch {
	case sqlState(cause) == stateLockTimeout:
		return CodePublicationUsed, "publication", nil, nil
	case sqlState(cause) == stateReadOnly, !errors.As(cause, &e):
		return CodePublication, "publication", nil, nil
	}
	if chosen := s.checkColumns(ctx, sql); chosen != nil && chosen.Error() == cause.Error() {
		return CodeTables, "columns", nil, nil
	}
	all, err := listTables(ctx, sql)
	if err != nil {
		return "", "", nil, err
	}
	wanted, err := selectTables(all, s.cfg.patterns())
	if err != nil {
		return CodeTables, "tables", nil, nil
	}
	if keyless := keylessOf(wanted); len(keyless) > 0 && refuseKeyless(wanted).Error() == cause.Error() {
		return CodeNoKey, "tables", fullIdentity(keyless), nil
	}
	exists, err := publicationExists(ctx, sql, s.cfg.Publication)
	if err != nil {
		return "", "", nil, err
	}
	if !exists {
		return CodePublication, "publication", []string{s.createStatement(wanted)}, nil
	}
	return c.alterCode(ctx, sql, wanted)
}

// alterCode is publicationCode for one that exists and holds other tables.
func (c *checker) alterCode(ctx context.Context, sql *pgx.Conn, wanted []catalogTable) (code, setting string, mend []string, err error) {
	published, err := c.source.published(ctx, sql)
	if err != nil {
		return "", "", nil, err
	}
	add, drop := published.difference(wanted)
	for _, change := range []struct {
		verb   string
		tables []catalogTable
	}{{"ADD", add}, {"DROP", drop}} {
		if len(change.tables) > 0 {
			mend = append(mend, c.source.alterStatement(change.verb, change.tables))
		}
	}
	if keyless := keylessOf(add); len(keyless) > 0 && c.source.cfg.CreatePublication {
		return CodeNoKey, "tables", fullIdentity(keyless), nil
	}
	return CodePublicationSet, "tables", mend, nil
}

func keylessOf(tables []catalogTable) []catalogTable {
	return slices.DeleteFunc(slices.Clone(tables), func(t catalogTable) bool { return t.hasKey })
}

func fullIdentity(tables []catalogTable) []string {
	out := make([]string, len(tables))
	for i, t := range tables {
		out[i] = fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL", t.quoted())
	}
	return out
}

// findTables lists what would be captured: what the publication holds, else what the
// configuration names.
func (c *checker) findTables(ctx context.Context, sql *pgx.Conn, fitted bool) (err error) {
	if fitted {
		c.tables, err = c.source.tablesToRead(ctx, sql, tableName{})
		return err
	}
	all, err := listTables(ctx, sql)
	if err != nil {
		return err
	}
	wanted, err := selectTables(all, c.source.cfg.patterns())
	if err != nil {
		return nil // said already
	}
	const query = `SELECT c.oid, c.relkind = 'p', has_schema_privilege(c.relnamespace, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`
	for _, w := range wanted {
		t := &readTable{tableName: w.tableName, cfg: &c.source.cfg}
		if err := sql.QueryRow(ctx, query, t.schema, t.name).Scan(&t.oid, &t.partitioned, &t.readable, &t.policies); err != nil {
			return fmt.Errorf("look up table %s: %w", t, err)
		}
		c.tables = append(c.tables, t)
	}
	return nil
}

// checkKeys warns of published tables whose rows the server lets nobody update.
func (c *checker) checkKeys(ctx context.Context, sql *pgx.Conn, fitted bool) error {
	if !fitted {
		return nil // those that would be refused were
	}
	keyless, err := c.source.keylessPublished(ctx, sql)
	if err != nil {
		return err
	}
	if len(keyless) == 0 {
		c.ok(CodeNoKey, "tables", "each table has a key, or REPLICA IDENTITY FULL")
		return nil
	}
	c.warn(CodeNoKey, "tables", "published tables without a key: the server refuses their UPDATEs and DELETEs: "+someNames(keyless),
		"add a primary key, or ALTER TABLE … REPLICA IDENTITY FULL; leave it if they are only ever inserted into", fullIdentity(keyless)...)
	return nil
}

func someNames(tables []catalogTable) string {
	if len(tables) <= namedAtMost {
		return names(tables)
	}
	return fmt.Sprintf("%s and %d more", names(tables[:namedAtMost]), len(tables)-namedAtMost)
}

// readTables sees that the tables may be read, and reads a row of them. If no start reads
// them, nobody has to be able to. Once there is a slot, the first start is past: what cannot
// be read is in the way of a backfill only, and of tables that join.
func (c *checker) readTables(ctx context.Context, sql *pgx.Conn) error {
	if !c.options.Snapshot || len(c.tables) == 0 || c.has(CodePublicationUsed) {
		return nil
	}
	before := len(c.out.Findings)
	err := c.readEach(ctx, sql)
	for i := before; c.slot != nil && i < len(c.out.Findings); i++ {
		if f := &c.out.Findings[i]; f.Severity == capture.SeverityError {
			f.Severity = capture.SeverityWarning
		}
	}
	return err
}

func (c *checker) readEach(ctx context.Context, sql *pgx.Conn) error {
	if err := c.source.refuseUnreadable(c.tables); err != nil {
		code, mend := c.unreadable()
		c.fail(code, "tables", err, mend...)
		return nil
	}
	tables := c.tables
	if !c.options.Deep {
		tables = tables[:min(len(tables), readAtMost)]
	}
	for _, t := range tables {
		if err := c.readRow(ctx, sql, t); err != nil {
			return err
		}
	}
	if !c.has(CodeRead) {
		c.ok(CodeSelect, "tables", "%d tables may be read; a row was read from %d of them", len(c.tables), len(tables))
	}
	return nil
}

func (c *checker) has(code string) bool {
	return slices.ContainsFunc(c.out.Findings, func(f capture.Finding) bool { return f.Code == code })
}

// unreadable is what refuseUnreadable refuses, as a code and the statements that mend it.
func (c *checker) unreadable() (code string, mend []string) {
	user := quoteIdent(c.source.cfg.user())
	var schemas, tables []string
	for _, t := range c.tables {
		if !t.readable {
			tables = append(tables, t.quoted())
			schemas = append(schemas, quoteIdent(t.schema))
		}
	}
	if len(tables) == 0 {
		return CodeRowSecurity, []string{"ALTER ROLE " + user + " BYPASSRLS"}
	}
	slices.Sort(schemas)
	return CodeSelect, []string{
		"GRANT USAGE ON SCHEMA " + strings.Join(slices.Compact(schemas), ", ") + " TO " + user,
		"GRANT SELECT ON " + strings.Join(tables, ", ") + " TO " + user,
	}
}

// readRow reads one row of a table as the snapshot would.
func (c *checker) readRow(ctx context.Context, sql *pgx.Conn, t *readTable) error {
	if err := execute(ctx, sql, "SAVEPOINT read"); err != nil {
		return fmt.Errorf("make a savepoint: %w", err)
	}
	err := t.describeRead(ctx, sql)
	if err == nil {
		err = execute(ctx, sql, t.query()+" LIMIT 1")
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if back := execute(ctx, sql, "ROLLBACK TO SAVEPOINT read"); back != nil {
		return errors.Join(err, back)
	}
	if err = t.readError(err); sqlState(err) == stateLockTimeout {
		err = &Error{err, hintLocked, false, codeEnvironment}
	}
	c.fail(CodeRead, "tables", err)
	return nil
}
