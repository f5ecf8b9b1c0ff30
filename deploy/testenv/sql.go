package testenv

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// TB is what the helpers need of *testing.T, *testing.B and *testing.F.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
}

// startTimeout bounds one server's start in tests; a loaded machine takes seconds.
const startTimeout = 2 * time.Minute

// NewPostgres is StartPostgres for one test.
func NewPostgres(tb TB, o PGOptions) *Postgres {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	p, err := StartPostgres(ctx, o)
	if err != nil {
		tb.Fatalf("start PostgreSQL: %v", err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("close PostgreSQL: %v", err)
		}
	})
	return p
}

// Exec runs statements in db as superuser, each by itself (so that those that allow no
// transaction, like CREATE DATABASE, pass).
func (p *Postgres) Exec(ctx context.Context, db string, statements ...string) error {
	conn, err := pgx.Connect(ctx, p.AdminURL(db))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", db, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, s := range statements {
		if _, err := conn.PgConn().Exec(ctx, s).ReadAll(); err != nil {
			return fmt.Errorf("run %q: %w", s, err)
		}
	}
	return nil
}

// Set changes a server setting; it holds after Reload, or after Stop and Start where the
// setting asks for that.
func (p *Postgres) Set(ctx context.Context, name, value string) error {
	return p.Exec(ctx, "postgres", "ALTER SYSTEM SET "+name+" = '"+strings.ReplaceAll(value, "'", "''")+"'")
}

// CreateDatabase makes a database with a name of its own and returns that.
func (p *Postgres) CreateDatabase(tb TB) string {
	tb.Helper()
	name := strings.ReplaceAll(Unique("db"), "-", "_")
	if err := p.Exec(context.Background(), "postgres", "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("create a database: %v", err)
	}
	return name
}

// Connect is a superuser's connection to db, closed at the test's cleanup.
func (p *Postgres) Connect(tb TB, db string) *pgx.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.AdminURL(db))
	if err != nil {
		tb.Fatalf("connect to %s: %v", db, err)
	}
	tb.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}
