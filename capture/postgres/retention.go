package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
)

// Retention asks how much log the server keeps for a slot, over a connection of its own
// that stays open between questions. It is not safe for concurrent use.
type Retention struct {
	cfg  Config
	conn *pgx.Conn
}

// NewRetention returns one. It connects when it is asked.
func NewRetention(cfg Config) *Retention { return &Retention{cfg: cfg} }

// The position up to which log is kept is that of the oldest transaction that may be read
// again, restart_lsn, and not what was confirmed. A slot that is lost has none.
const retentionQuery = `SELECT coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint,
	coalesce(wal_status = 'lost', false), (SELECT setting::bigint << 20 FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
	FROM pg_replication_slots WHERE slot_name = $1`

// Read asks; nil: there is no slot. After an error it connects anew the next time.
func (r *Retention) Read(ctx context.Context) (*capture.Retained, error) {
	var err error
	if r.conn == nil {
		if r.conn, err = r.cfg.connectSQL(ctx); err != nil {
			return nil, err
		}
	}
	var kept capture.Retained
	err = r.conn.QueryRow(ctx, retentionQuery, r.cfg.Slot).Scan(&kept.Bytes, &kept.Lost, &kept.Bound)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask for the log that is kept: %w", err), r.Close())
	}
	kept.Bytes, kept.Bound = max(0, kept.Bytes), max(0, kept.Bound) // -1: no bound
	return &kept, nil
}

// Close gives up the connection.
func (r *Retention) Close() error {
	conn := r.conn
	if r.conn = nil; conn == nil {
		return nil
	}
	return conn.Close(context.Background())
}
