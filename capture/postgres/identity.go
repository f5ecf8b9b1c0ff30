package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
)

// identify says which log the connection reads, and how far it goes. The identity is the
// cluster's system identifier, which a restored copy shares and a new cluster does not,
// with database and slot:
//
//	postgresql/7301234567890123456/shop/tailrace_shop
//
// A slot that was dropped and made again has the same name; it shows by its position.
func (s *Source) identify(ctx context.Context, conn *session, sql *pgx.Conn) (capture.LogInfo, error) {
	system, err := pglogrepl.IdentifySystem(ctx, conn.PgConn)
	if err != nil {
		return capture.LogInfo{}, fmt.Errorf("identify the server: %w", err)
	}
	var text string
	const query = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)::text"
	if err := sql.QueryRow(ctx, query).Scan(&text); err != nil {
		return capture.LogInfo{}, fmt.Errorf("read the end of the log: %w", err)
	}
	end, err := pglogrepl.ParseLSN(text)
	if err != nil {
		return capture.LogInfo{}, fmt.Errorf("read the end of the log: %w", err)
	}
	return capture.LogInfo{
		Identity: fmt.Sprintf("%s/%s/%s/%s", connector, system.SystemID, system.DBName, s.cfg.Slot),
		Highest:  capture.Position{Offset: uint64(end)},
		Timeline: uint32(system.Timeline),
	}, nil
}
