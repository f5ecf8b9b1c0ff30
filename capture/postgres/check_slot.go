package postgres

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
)

const (
	// slotPatience is how long a temporary slot may take to come.
	slotPatience = 5 * time.Second
	// decodePatience is how long what was written to the log may take to come out of it.
	decodePatience = 10 * time.Second
	// muchRetained is the log that a slot without a reader keeps before it is a warning.
	muchRetained = 1 << 30
)

// slotDetail is what Check wants to know of the capture's slot beside its state.
type slotDetail struct {
	retained int64
	reason   string // why it was invalidated; "": it was not, or the server does not say
}

// checkOwnSlot looks at the capture's slot, and takes nothing of it.
func (c *checker) checkOwnSlot(ctx context.Context, sql *pgx.Conn) error {
	state, err := c.source.readSlot(ctx, sql)
	if err != nil {
		return err
	}
	if c.slot = state; state == nil {
		c.ok(CodeSlot, "slot", "slot %q is not there yet: the first start makes it", c.source.cfg.Slot)
		return nil
	}
	var d slotDetail
	const query = `SELECT coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn), 0)::int8,
		coalesce(to_jsonb(s) ->> 'invalidation_reason', '') FROM pg_replication_slots s WHERE slot_name = $1`
	if err := sql.QueryRow(ctx, query, c.source.cfg.Slot).Scan(&d.retained, &d.reason); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("read slot %q: %w", c.source.cfg.Slot, err)
	}
	lost, err := c.source.checkSlot(ctx, sql, state)
	if err = cmp.Or(err, lost); err != nil {
		c.fail(c.slotCode(sql, state), "slot", err)
		return nil
	}
	c.slotAtWork(state, d)
	return nil
}

// slotCode is the code of what checkSlot refuses.
func (c *checker) slotCode(sql *pgx.Conn, state *slotState) string {
	switch {
	case state.plugin != plugin || state.database != sql.Config().Database:
		return CodeSlotForeign
	case state.walStatus == "lost":
		return CodeSlotLost
	}
	return CodeSlotPublication
}

func (c *checker) slotAtWork(state *slotState, d slotDetail) {
	name, bound := c.source.cfg.Slot, int64(muchRetained)
	if c.server.keep >= 0 {
		bound = min(bound, c.server.keep/2)
	}
	switch {
	case d.reason != "":
		c.add(capture.Finding{Code: CodeSlotLost, Severity: capture.SeverityError, Setting: "slot",
			Found: fmt.Sprintf("slot %q was invalidated by the server: %s", name, d.reason),
			Mend:  "changes are lost to this slot: drop it; the way on is a new epoch"})
	case state.walStatus == "unreserved":
		c.warn(CodeSlotUnreserved, "slot", fmt.Sprintf("slot %q keeps %s of log, more than the server will keep: it is about to be lost", name, sizeText(d.retained)),
			"start the capture now; raise max_slot_wal_keep_size", "ALTER SYSTEM SET max_slot_wal_keep_size = -1", reload)
	case state.pid == nil && d.retained > bound:
		c.warn(CodeSlotRetains, "slot", fmt.Sprintf("nobody reads slot %q, and it keeps %s of log", name, sizeText(d.retained)),
			"start the capture; or, if it is not wanted any more, drop the slot: SELECT pg_drop_replication_slot("+quoteLiteral(name)+");")
	case state.pid == nil:
		c.ok(CodeSlot, "slot", "slot %q is ready at %s, nobody reads it; it keeps %s of log", name, state.confirmed, sizeText(d.retained))
	default:
		c.ok(CodeSlot, "slot", "slot %q is being read by process %d; it keeps %s of log", name, *state.pid, sizeText(d.retained))
	}
}

// checkNewSlot makes a temporary slot over a replication connection, and drops it.
func (c *checker) checkNewSlot(ctx context.Context, sql *pgx.Conn) error {
	if c.server.fitLevel() != nil || c.server.standby && c.server.version < 160000 {
		return nil // said already, and nothing could come of it
	}
	full := c.slotsFull()
	conn, err := c.source.cfg.connectReplication(ctx)
	if err != nil {
		return c.noReplication(ctx, err)
	}
	c.ok(CodeReplication, "url", "connected for replication")
	defer func() { _ = conn.terminate() }()
	if full {
		return nil
	}
	return c.temporarySlot(ctx, conn, sql)
}

// slotsFull says that no slot is free. That is an error only if the capture needs one.
func (c *checker) slotsFull() bool {
	f := &c.server
	if f.slotsUsed < f.slots {
		c.ok(CodeSlots, "", "%d of %d replication slots are free", f.slots-f.slotsUsed, f.slots)
		return false
	}
	c.full(CodeSlots, "slot", "replication slots", "max_replication_slots", f.slots, c.slot != nil)
	return true
}

// full adds that all of a limited kind are in use. served: the capture has its own already.
func (c *checker) full(code, setting, what, name string, limit int, served bool) {
	found := fmt.Sprintf("all %d %s are in use", limit, what)
	severity := capture.SeverityError
	if served {
		severity = capture.SeverityWarning
		found += "; this capture has its own, but none can be made for a check or a repair"
	}
	mend := fmt.Sprintf("raise %s and restart the server", name)
	if code == CodeSlots {
		mend += "; or drop a slot that nobody needs: SELECT slot_name, active FROM pg_replication_slots"
	}
	c.add(capture.Finding{Code: code, Severity: severity, Setting: setting, Found: found, Mend: mend,
		SQL: []string{fmt.Sprintf("ALTER SYSTEM SET %s = %d", name, limit+10)}, Restart: true})
}

// noReplication adds why there is no replication connection.
func (c *checker) noReplication(ctx context.Context, err error) error {
	user := quoteIdent(c.source.cfg.user())
	switch {
	case ctx.Err() != nil:
		return err
	case sqlState(err) == stateTooManyConnections && routine(err) == "InitWalSenderSlot", sqlState(err) == stateTooManyConnections && c.server.sendersUsed >= c.server.senders:
		c.full(CodeSenders, "", "walsenders", "max_wal_senders", c.server.senders, c.slot != nil && c.slot.pid != nil)
	case sqlState(err) == stateNoPrivilege:
		c.fail(CodeReplication, "url", err, "ALTER ROLE "+user+" REPLICATION")
	case sqlState(err) == stateInvalidAuth && roleRefused(err):
		c.fail(CodeReplication, "url", err, "ALTER ROLE "+user+" REPLICATION")
	default:
		c.fail(CodeReplication, "url", err)
	}
	return nil
}

// scratchName returns a name that nothing else has.
func scratchName() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return "tailrace_doctor_" + hex.EncodeToString(b[:])
}

// temporarySlot makes the slot and drops it. The server first waits for transactions that
// write: for one that does not end a person is asked to look.
func (c *checker) temporarySlot(ctx context.Context, conn *session, sql *pgx.Conn) error {
	name := scratchName()
	begun := time.Now()
	err := createTemporary(ctx, conn, name)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case sqlState(err) == stateCanceled:
		return c.slotWaits(ctx, sql)
	case err != nil:
		code := CodeSlotCreate
		if sqlState(err) == stateNoPrivilege {
			code = CodeReplication
		}
		c.fail(code, "slot", c.source.createError(err))
		return nil
	}
	c.ok(CodeSlotCreate, "slot", "made a temporary slot in %s", time.Since(begun).Round(time.Millisecond))
	var decodeErr error
	if c.options.Deep {
		decodeErr = c.decode(ctx, conn, sql, name)
	}
	if err := dropTemporary(ctx, conn, sql, name, c.options.Deep); err != nil {
		c.warn(CodeSlotLeft, "slot", fmt.Sprintf("drop temporary slot %q: %v", name, err), "the server drops it when it sees the connection's end; see pg_replication_slots")
	}
	return decodeErr
}

// dropTemporary drops the slot. A connection that was in the midst of the log takes no
// command any more: with its end the slot goes.
func dropTemporary(ctx context.Context, conn *session, sql *pgx.Conn, name string, reading bool) error {
	if reading {
		return errors.Join(conn.terminate(), awaitGone(ctx, sql, name))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	return pglogrepl.DropReplicationSlot(ctx, conn.PgConn, name, pglogrepl.DropReplicationSlotOptions{})
}

// createTemporary makes a temporary slot. If the server takes too long, or ctx ends, the
// statement is cancelled there: a server that waits does not notice that we are gone.
func createTemporary(ctx context.Context, conn *session, name string) error {
	made := make(chan error, 1)
	running, stop := context.WithTimeout(context.WithoutCancel(ctx), slotPatience+cleanTime)
	defer stop()
	go func() {
		_, err := pglogrepl.CreateReplicationSlot(running, conn.PgConn, name, plugin,
			pglogrepl.CreateReplicationSlotOptions{Temporary: true, SnapshotAction: "NOEXPORT_SNAPSHOT"})
		made <- err
	}()
	patience := time.NewTimer(slotPatience)
	defer patience.Stop()
	select {
	case err := <-made:
		return err
	case <-patience.C:
	case <-ctx.Done():
	}
	if err := conn.CancelRequest(running); err != nil {
		stop()
		return errors.Join(<-made, fmt.Errorf("cancel the making of a temporary slot: %w", err))
	}
	return <-made
}

// slotWaits adds for whom the slot waited.
func (c *checker) slotWaits(ctx context.Context, sql *pgx.Conn) error {
	const query = `SELECT coalesce(string_agg(format('process %s (%s, since %s)', pid, coalesce(usename, '?'), date_trunc('second', xact_start)), ', ' ORDER BY xact_start), ''),
		coalesce((array_agg(pid ORDER BY xact_start))[1], 0)
		FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()`
	var who string
	var first int
	if err := sql.QueryRow(ctx, query).Scan(&who, &first); err != nil {
		return fmt.Errorf("look for open transactions: %w", err)
	}
	found := fmt.Sprintf("a slot was not made in %s: the server waits for transactions that began before", slotPatience)
	var end []string
	if who != "" {
		found += ": " + who
		end = []string{fmt.Sprintf("SELECT pg_terminate_backend(%d)", first)}
	}
	c.warn(CodeSlotWait, "slot", found, "end these transactions, or wait for them; prepared ones are in pg_prepared_xacts", end...)
	return nil
}

// decode starts the replication from the temporary slot, writes a message to the log, and
// waits until it comes.
func (c *checker) decode(ctx context.Context, conn *session, sql *pgx.Conn, name string) error {
	err := pglogrepl.StartReplication(ctx, conn.PgConn, name, 0, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names " + quoteReplication(quoteIdent(c.source.cfg.Publication)), "messages 'true'"},
	})
	if err != nil {
		c.fail(CodeDecode, "slot", fmt.Errorf("read from a temporary slot: %w", err))
		return ctx.Err()
	}
	begun := time.Now()
	if _, err := sql.Exec(ctx, "SELECT pg_logical_emit_message(false, 'tailrace.doctor', $1::text)", name); err != nil {
		c.warn(CodeDecode, "slot", fmt.Sprintf("write a message to the log: %v", err), "give the user EXECUTE on pg_logical_emit_message, or check without --deep")
		return ctx.Err()
	}
	waiting, cancel := context.WithTimeout(ctx, decodePatience)
	defer cancel()
	if err := awaitMessage(waiting, conn, name); err != nil {
		c.fail(CodeDecode, "slot", fmt.Errorf("what was written to the log did not come out of a slot in %s: %w", decodePatience, err))
		return ctx.Err()
	}
	c.ok(CodeDecode, "slot", "a message written to the log came out of a slot after %s", time.Since(begun).Round(time.Millisecond))
	return nil
}

// awaitMessage reads the log until a message with the text comes.
func awaitMessage(ctx context.Context, conn *session, text string) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Conn().SetReadDeadline(time.Unix(1, 0)) })()
	frames := newFrames(conn.reader)
	for {
		kind, content, ok, err := frames.next()
		switch {
		case err != nil:
			return err
		case ok && kind == 'E':
			return errors.New("the server ended the replication")
		case ok && bytes.Contains(content, []byte(text)):
			return nil
		case ok:
			continue
		}
		if _, err := frames.fill(); ctx.Err() != nil {
			return context.Cause(ctx)
		} else if err != nil {
			return err
		}
	}
}

// awaitGone waits until the server has dropped a temporary slot whose connection was ended.
func awaitGone(ctx context.Context, sql *pgx.Conn, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	tick := time.NewTicker(slotPause)
	defer tick.Stop()
	for {
		var there bool
		if err := sql.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", name).Scan(&there); err != nil || !there {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it is still there after %s", cleanTime)
		}
	}
}
