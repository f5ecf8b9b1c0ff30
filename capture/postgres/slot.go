package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
)

// plugin is the output plugin whose messages this package reads.
const plugin = "pgoutput"

// Inspect says which log this is, and waits until nobody uses the slot; see
// capture.Source. It also checks what the server must have and allow.
func (s *Source) Inspect(ctx context.Context) (capture.LogInfo, error) {
	sql, err := s.catalog.connect(ctx)
	if err != nil {
		return capture.LogInfo{}, err
	}
	if err := fitServer(ctx, sql); err != nil {
		return capture.LogInfo{}, err
	}
	conn, err := s.cfg.connectReplication(ctx)
	if err != nil {
		return capture.LogInfo{}, err
	}
	info, err := s.identify(ctx, conn, sql)
	timeout := conn.senderTimeout
	if err = errors.Join(err, conn.terminate()); err != nil {
		return capture.LogInfo{}, err
	}
	state, err := s.waitForSlot(ctx, sql, timeout)
	if err != nil || state == nil {
		return info, err
	}
	if info.Lost, err = s.checkSlot(ctx, sql, state); err != nil || info.Lost != nil {
		return info, err
	}
	info.Ready, info.Lowest = true, capture.Position{Offset: uint64(state.confirmed)}
	return info, nil
}

// slotState is a row of pg_replication_slots, with who uses the slot.
type slotState struct {
	plugin, database, walStatus string
	confirmed                   pglogrepl.LSN
	pid                         *int32 // of the backend that uses it
	application, client, user   *string
}

// readSlot returns nil if there is no such slot.
func (s *Source) readSlot(ctx context.Context, sql *pgx.Conn) (*slotState, error) {
	const query = `SELECT coalesce(s.plugin, ''), coalesce(s.database, ''), coalesce(s.wal_status, ''),
		coalesce(s.confirmed_flush_lsn, '0/0')::text, s.active_pid, a.application_name, a.client_addr::text, a.usename::text
		FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1`
	var st slotState
	var confirmed string
	err := sql.QueryRow(ctx, query, s.cfg.Slot).Scan(&st.plugin, &st.database, &st.walStatus, &confirmed,
		&st.pid, &st.application, &st.client, &st.user)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		st.confirmed, err = pglogrepl.ParseLSN(confirmed)
	}
	if err != nil {
		return nil, fmt.Errorf("read slot %q: %w", s.cfg.Slot, err)
	}
	return &st, nil
}

const (
	slotPause      = 50 * time.Millisecond // between looks at a slot that is in use, at first
	maxSlotPause   = time.Second
	slotGrace      = 3 * time.Second  // beyond the server's own timeout
	defaultSlotEnd = 30 * time.Second // if the server has no timeout
)

// waitForSlot waits until the slot is free: a predecessor that died holds it until the
// server notices, which takes at most wal_sender_timeout.
func (s *Source) waitForSlot(ctx context.Context, sql *pgx.Conn, timeout time.Duration) (*slotState, error) {
	if timeout == 0 {
		timeout = defaultSlotEnd
	}
	begin := time.Now()
	for pause := slotPause; ; pause = min(2*pause, maxSlotPause) {
		state, err := s.readSlot(ctx, sql)
		if err != nil || state == nil || state.pid == nil {
			return state, err
		}
		if time.Since(begin) > timeout+slotGrace {
			return nil, s.inUse(state, time.Since(begin))
		}
		if pause == slotPause {
			s.log.Info("wait for the slot to be free", "slot", s.cfg.Slot, "pid", *state.pid, "at most", timeout+slotGrace)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (s *Source) inUse(state *slotState, waited time.Duration) error {
	text := func(p *string) string {
		if p == nil {
			return "unknown"
		}
		return *p
	}
	return unfit(fmt.Sprintf("stop the other reader, or give this capture a slot of its own; to end the other's session: SELECT pg_terminate_backend(%d)", *state.pid),
		"slot %q is in use by process %d (application %q, user %q, from %s) and did not become free in %s",
		s.cfg.Slot, *state.pid, text(state.application), text(state.user), text(state.client), waited.Round(time.Second))
}

// checkSlot looks whether a slot is ours to read from. lost says why what it should have
// kept cannot be read any more.
func (s *Source) checkSlot(ctx context.Context, sql *pgx.Conn, state *slotState) (lost, err error) {
	const another = "choose another slot name, or drop that slot if nobody needs it"
	switch {
	case state.plugin == "":
		return nil, misconfigured(another, "slot %q is one for physical replication", s.cfg.Slot)
	case state.plugin != plugin:
		return nil, misconfigured(another, "slot %q is of output plugin %s, not %s", s.cfg.Slot, state.plugin, plugin)
	case state.database != sql.Config().Database:
		return nil, misconfigured(another, "slot %q is of database %q, not %q", s.cfg.Slot, state.database, sql.Config().Database)
	case state.walStatus == "unreserved":
		s.log.Warn("the server is about to remove log that the slot needs", "slot", s.cfg.Slot, "hint", "raise max_slot_wal_keep_size")
	case state.walStatus == "lost":
		return unfit("the server removed log that the slot needed (max_slot_wal_keep_size, or a conflict on a standby): changes are lost to this slot",
			"slot %q was invalidated by the server", s.cfg.Slot), nil
	}
	exists, err := publicationExists(ctx, sql, s.cfg.Publication)
	if err == nil && !exists {
		lost = unfit("changes made while there is no publication cannot be read, also not after it is created again",
			"slot %q exists, but publication %q does not", s.cfg.Slot, s.cfg.Publication)
	}
	return lost, err
}

// Prepare creates the publication, if it is missing, and the slot, and returns the slot's
// position: all that commits after it will be read. The server first waits for
// transactions that are running to end. With snapshot, it first sees that the tables may
// be read. If there are some without a key, which can be read only now and whole, it keeps
// the connection, and so what the slot exports, until Snapshot has ended or Close.
func (s *Source) Prepare(ctx context.Context, snapshot bool) (at capture.Position, covered []capture.CapturedTable, err error) {
	if err := s.fitPublication(ctx); err != nil {
		return at, nil, err
	}
	export := false
	if snapshot {
		tables, err := s.checkReadable(ctx)
		if err != nil {
			return at, nil, err
		}
		covered = captured(tables)
		export = slices.ContainsFunc(tables, (*readTable).keyless)
	}
	conn, err := s.cfg.connectReplication(ctx)
	if err != nil {
		return at, nil, err
	}
	made, lsn, err := s.createSlot(ctx, conn, export)
	if err != nil || !export {
		err = errors.Join(err, conn.terminate())
	}
	if err == nil && snapshot {
		s.mu.Lock()
		s.prepared = &prepared{lsn: uint64(lsn)}
		if export {
			s.prepared.conn, s.prepared.name = conn, made.SnapshotName
		}
		s.mu.Unlock()
	}
	return capture.Position{Offset: uint64(lsn)}, covered, err
}

func (s *Source) createSlot(ctx context.Context, conn *session, snapshot bool) (made pglogrepl.CreateReplicationSlotResult, lsn pglogrepl.LSN, err error) {
	action := "NOEXPORT_SNAPSHOT"
	if snapshot {
		action = "EXPORT_SNAPSHOT"
		if _, err := conn.Exec(ctx, noTransactionTimeout).ReadAll(); err != nil {
			return made, 0, fmt.Errorf("create slot %q: %w", s.cfg.Slot, err)
		}
	}
	note := time.AfterFunc(5*time.Second, func() {
		s.log.Info("the server creates the slot when transactions that began before have ended", "slot", s.cfg.Slot)
	})
	made, err = pglogrepl.CreateReplicationSlot(ctx, conn.PgConn, s.cfg.Slot, plugin,
		pglogrepl.CreateReplicationSlotOptions{SnapshotAction: action})
	note.Stop()
	if err != nil {
		return made, 0, s.createError(err)
	}
	if lsn, err = pglogrepl.ParseLSN(made.ConsistentPoint); err != nil {
		return made, 0, fmt.Errorf("create slot %q: %w", s.cfg.Slot, err)
	}
	s.log.Info("created the slot", "slot", s.cfg.Slot, "position", lsn.String())
	return made, lsn, nil
}

// Discard drops the slot, if there is one: one that nobody uses and that is such as
// Prepare makes.
func (s *Source) Discard(ctx context.Context) error {
	sql, err := s.catalog.connect(ctx)
	if err != nil {
		return err
	}
	state, err := s.readSlot(ctx, sql)
	switch {
	case err != nil || state == nil:
		return err
	case state.plugin != plugin || state.database != sql.Config().Database:
		return misconfigured("choose another slot name, or drop that slot if nobody needs it",
			"slot %q is of output plugin %q and database %q: it is not dropped", s.cfg.Slot, state.plugin, state.database)
	case state.pid != nil:
		return s.inUse(state, 0)
	}
	if _, err := sql.Exec(ctx, "SELECT pg_drop_replication_slot($1)", s.cfg.Slot); err != nil {
		return fmt.Errorf("drop slot %q: %w", s.cfg.Slot, err)
	}
	s.log.Info("dropped the slot of a snapshot that was interrupted", "slot", s.cfg.Slot)
	return nil
}

// createError classifies why there is no slot.
func (s *Source) createError(err error) error {
	err = fmt.Errorf("create slot %q: %w", s.cfg.Slot, err)
	switch sqlState(err) {
	case stateConfigLimit:
		return &Error{err, "raise max_replication_slots (a restart), or drop a slot that nobody needs: SELECT slot_name, active FROM pg_replication_slots", true, codeEnvironment}
	case stateNoPrivilege:
		return &Error{err, fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION;", quoteIdent(s.cfg.user())), true, codeEnvironment}
	case stateNotPrerequisite:
		return &Error{err, "set wal_level = logical and restart the server", true, codeEnvironment}
	case stateDuplicateObject:
		return &Error{err, "another capture made it just now: give each capture its own slot", true, codeEnvironment}
	}
	return err
}
