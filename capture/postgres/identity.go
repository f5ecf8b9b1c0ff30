package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

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
	forks, err := readForks(ctx, conn, system.Timeline)
	if err != nil {
		return capture.LogInfo{}, fmt.Errorf("read the history of timeline %d: %w", system.Timeline, err)
	}
	return capture.LogInfo{
		Identity: fmt.Sprintf("%s/%s/%s/%s", connector, system.SystemID, system.DBName, s.cfg.Slot),
		Highest:  capture.Position{Offset: uint64(end)},
		Timeline: uint32(system.Timeline),
		Forks:    forks,
	}, nil
}

// readForks returns where the log left the timelines before this one. The first has no
// history, and a server may have lost its file: then it cannot tell, and nothing is
// returned.
func readForks(ctx context.Context, conn *session, timeline int32) ([]capture.Fork, error) {
	if timeline < 2 {
		return nil, nil
	}
	history, err := pglogrepl.TimelineHistory(ctx, conn.PgConn, timeline)
	if sqlState(err) == stateUndefinedFile {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseForks(string(history.Content))
}

// parseForks reads a timeline's history file: for each timeline before it a line
//
//	number · LSN where it was left · why
//
// between blanks; # begins a comment. Source: PostgreSQL's src/backend/access/transam/timeline.c.
func parseForks(history string) (forks []capture.Fork, err error) {
	for line := range strings.Lines(history) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("line %q has no position", line)
		}
		timeline, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		lsn, err := pglogrepl.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", line, err)
		}
		forks = append(forks, capture.Fork{Timeline: uint32(timeline), At: capture.Position{Offset: uint64(lsn)}})
	}
	return forks, nil
}
