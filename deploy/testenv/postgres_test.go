package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestPostgresVersions(t *testing.T) {
	for _, version := range []int{14, 15, 16, 17, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			p := NewPostgres(t, PGOptions{Version: version, Settings: map[string]string{"wal_sender_timeout": "3s"}})
			conn := p.Connect(t, "postgres")
			var number int
			var level, timeout string
			err := conn.QueryRow(t.Context(), `SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_setting('wal_sender_timeout')`).Scan(&number, &level, &timeout)
			if err != nil {
				t.Fatal(err)
			}
			if number/10000 != version || level != "logical" || timeout != "3s" {
				t.Fatalf("server is %d with wal_level %s, wal_sender_timeout %s", number, level, timeout)
			}
			var lsn string
			for _, plugin := range []string{"pgoutput", "test_decoding"} {
				if err := conn.QueryRow(t.Context(), `SELECT lsn FROM pg_create_logical_replication_slot($1, $1)`, plugin).Scan(nil); err != nil {
					t.Errorf("slot with %s: %v", plugin, err)
				}
			}
			if err := conn.QueryRow(t.Context(), `SELECT pg_current_wal_lsn()::text`).Scan(&lsn); err != nil || lsn == "" {
				t.Errorf("lsn %q: %v", lsn, err)
			}
		})
	}
}

func TestPostgresPasswordIsChecked(t *testing.T) {
	p := SharedPostgres(t)
	_, err := pgx.Connect(t.Context(), p.URL("postgres", "wrong", "postgres"))
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Fatalf("a wrong password gives %v, not 28P01", err)
	}
	if err := p.Exec(t.Context(), p.CreateDatabase(t), "CREATE TABLE t (id int)", "VACUUM t"); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresStopsAndGoesOn(t *testing.T) {
	p := NewPostgres(t, PGOptions{})
	if err := p.Exec(t.Context(), "postgres", "CREATE TABLE t (mode text)"); err != nil {
		t.Fatal(err)
	}
	port := p.Port
	for _, mode := range []string{"smart", "fast", "immediate", "kill"} {
		if err := p.Exec(t.Context(), "postgres", "INSERT INTO t VALUES ('"+mode+"')"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := p.Stop(ctx, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := pgx.Connect(ctx, p.AdminURL("postgres")); err == nil {
			t.Fatalf("after %s the server still answers", mode)
		}
		if err := p.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := p.Connect(t, "postgres").QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil || n != 4 || p.Port != port {
		t.Fatalf("%d rows of 4, port %d (was %d): %v", n, p.Port, port, err)
	}
}

// A smart stop waits for clients, so it must end with the context, and leave the server.
func TestPostgresStopEndsWithContext(t *testing.T) {
	p := NewPostgres(t, PGOptions{})
	conn := p.Connect(t, "postgres")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx, "smart"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("smart stop with a client: %v", err)
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Fatalf("the server did not stay: %v", err)
	}
}

func TestPostgresSettingsAndReload(t *testing.T) {
	p := NewPostgres(t, PGOptions{})
	conn := p.Connect(t, "postgres")
	if err := p.Set(t.Context(), "work_mem", "5MB"); err != nil {
		t.Fatal(err)
	}
	if err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		var v string
		if err := conn.QueryRow(t.Context(), "SELECT current_setting('work_mem')").Scan(&v); err != nil {
			t.Fatal(err)
		}
		if v == "5MB" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("work_mem is %s ten seconds after the reload", v)
		}
	}
}

func TestPostgresLeavesNothing(t *testing.T) {
	p, err := StartPostgres(t.Context(), PGOptions{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(p.Dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("directory %s: %v, %v", p.Dir, info.Mode(), err)
	}
	pid := p.proc.Pid()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.Dir); !os.IsNotExist(err) || running(pid) {
		t.Fatalf("after Close: directory %v, process running %v", err, running(pid))
	}
}

func TestPostgresRefusesUnknown(t *testing.T) {
	if _, err := StartPostgres(t.Context(), PGOptions{Version: 9}); err == nil || !strings.Contains(err.Error(), "14 to 18") {
		t.Errorf("version 9: %v", err)
	}
	_, err := StartPostgres(t.Context(), PGOptions{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("an unknown setting: %v", err)
	}
	t.Setenv("TAILRACE_DEPS", t.TempDir())
	if _, err := StartPostgres(t.Context(), PGOptions{Version: 17}); err == nil || !strings.Contains(err.Error(), "make deps") {
		t.Errorf("a version that is not installed: %v", err)
	}
}

// A clone in a directory that only its owner may enter must do, too: the server's user
// cannot reach the programs there, so it gets a copy.
func TestPostgresFromAPrivateClone(t *testing.T) {
	cred, err := serverUser()
	if err != nil {
		t.Fatal(err)
	}
	deps := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(deps, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := CopyTree(filepath.Join(deps, "postgres", "17"), filepath.Join(Deps(), "postgres", "17")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TAILRACE_DEPS", deps)
	p := NewPostgres(t, PGOptions{Version: 17})
	t.Cleanup(func() {
		if home := filepath.Dir(p.bin); !strings.HasPrefix(home, deps) {
			os.RemoveAll(home)
			os.Remove(home + ".lock")
		}
	})
	if err := p.Exec(t.Context(), "postgres", "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if private := strings.HasPrefix(p.bin, deps); private != (cred == nil) {
		t.Errorf("the programs are run from %s", p.bin)
	}
	if err := ownedByUs("/proc/1"); os.Geteuid() != 0 && err == nil {
		t.Error("a directory of root's passes for ours")
	}
}
