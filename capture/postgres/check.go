package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// minServerVersion is server_version_num of PostgreSQL 14.
const minServerVersion = 140000

// checkServer checks what the whole server must be like.
func checkServer(ctx context.Context, sql *pgx.Conn) error {
	const query = `SELECT current_setting('server_version_num')::int, current_setting('wal_level'),
		current_setting('max_replication_slots')::int, current_setting('max_wal_senders')::int`
	var version, slots, senders int
	var level string
	if err := sql.QueryRow(ctx, query).Scan(&version, &level, &slots, &senders); err != nil {
		return fmt.Errorf("read the server's settings: %w", err)
	}
	switch {
	case version < minServerVersion:
		return unfit("PostgreSQL 14 to 18 are supported", "the server is PostgreSQL %d", version/10000)
	case level != "logical":
		return unfit("ALTER SYSTEM SET wal_level = logical; and restart the server (on a managed service, its own setting for logical replication)",
			"wal_level is %q: the log does not hold what is needed", level)
	case slots == 0 || senders == 0:
		return unfit("set max_replication_slots and max_wal_senders to 10 or so, and restart the server",
			"max_replication_slots is %d, max_wal_senders is %d", slots, senders)
	}
	return nil
}
