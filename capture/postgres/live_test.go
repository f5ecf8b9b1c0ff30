package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// patience is how long a test waits for what must happen at once.
const patience = 30 * time.Second

// live is a database of a real server with a capture of it.
type live struct {
	t      *testing.T
	server *testenv.Postgres
	db     string
	sql    *pgx.Conn
	cfg    Config
	rec    *recorder

	source *Source
	cancel context.CancelFunc
	ended  chan error
}

// newLive makes a database with the tables that statements make, and the configuration of
// a capture of it.
func newLive(t *testing.T, server *testenv.Postgres, statements ...string) *live {
	t.Helper()
	l := &live{t: t, server: server, db: server.CreateDatabase(t)}
	l.sql = server.Connect(t, l.db)
	l.exec(statements...)
	name := strings.ReplaceAll(testenv.Unique("live"), "-", "_")
	l.cfg = Config{URL: server.AdminURL(l.db), Name: name, Prefix: "srv", Slot: name, Publication: name,
		CreatePublication: true, Version: "test", Log: slog.New(slog.DiscardHandler)}
	l.rec = newRecorder(t)
	t.Cleanup(func() {
		l.stop()
		l.dropSlot()
	})
	return l
}

func (l *live) exec(statements ...string) {
	l.t.Helper()
	for _, s := range statements {
		if _, err := l.sql.Exec(context.Background(), s); err != nil {
			l.t.Fatalf("%s: %v", s, err)
		}
	}
}

// dropSlot drops the slot once the server has noticed that its reader is gone.
func (l *live) dropSlot() {
	err := l.eventually(func() (bool, error) {
		err := l.server.Exec(context.Background(), l.db,
			"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+l.cfg.Slot+"'")
		return err == nil, err
	})
	if err != nil {
		l.t.Errorf("drop the slot: %v", err)
	}
}

// eventually asks until it is true; the database offers nothing to wait on.
func (l *live) eventually(ask func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ask()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in %s: %w", patience, err)
		}
		<-tick.C
	}
}

// start runs a source as a pipeline would; with nil it resumes where the recorder stands.
func (l *live) start() {
	l.t.Helper()
	src, err := New(l.cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.source = src
	from, err := l.position()
	if err != nil {
		l.t.Fatal(err)
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	l.ended = make(chan error, 1)
	if l.rec.confirm == nil {
		l.rec.confirm = src.Confirm
	}
	go func() { l.ended <- src.Run(ctx, from, l.rec) }()
}

func (l *live) position() (capture.Position, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	info, err := l.source.Inspect(ctx)
	if err != nil {
		return capture.Position{}, err
	}
	if !info.Ready {
		at, _, err := l.source.Prepare(ctx, false)
		return at, err
	}
	if l.rec.pos.Compare(info.Lowest) < 0 {
		return info.Lowest, nil
	}
	return l.rec.pos, nil
}

// stop ends the capture and checks that it ends well.
func (l *live) stop() {
	if l.cancel == nil {
		return
	}
	l.cancel()
	if err := <-l.ended; !errors.Is(err, context.Canceled) {
		l.t.Errorf("the run ended with %v", err)
	}
	l.close()
}

func (l *live) close() {
	if err := l.source.Close(); err != nil {
		l.t.Errorf("close: %v", err)
	}
	l.cancel = nil
	l.rec.confirm = nil
	l.rec.open = false
}

// wantEnd waits for the run to end by itself.
func (l *live) wantEnd() error {
	l.t.Helper()
	select {
	case err := <-l.ended:
		_ = l.source.Close() // the server may be gone
		l.cancel, l.rec.confirm, l.rec.open = nil, nil, false
		return err
	case <-time.After(patience):
		l.t.Fatal("the run did not end")
		return nil
	}
}

// until waits for a line that has all of the parts.
func (l *live) until(parts ...string) string {
	l.t.Helper()
	line := ""
	l.wait(strings.Join(parts, " … "), func() bool {
		i := slices.IndexFunc(l.rec.lines, func(s string) bool { return containsAll(s, parts) })
		if i >= 0 {
			line = l.rec.lines[i]
		}
		return i >= 0
	})
	return line
}

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// wait waits until the recorder is as ok wants it.
func (l *live) wait(what string, ok func() bool) {
	l.t.Helper()
	deadline := time.After(patience)
	for {
		l.rec.mu.Lock()
		done := ok()
		l.rec.mu.Unlock()
		if done {
			return
		}
		select {
		case <-l.rec.news:
		case err := <-l.ended:
			l.ended <- err
			l.rec.mu.Lock()
			defer l.rec.mu.Unlock()
			if !ok() {
				l.t.Fatalf("the run ended with %v before %q; lines:\n%s", err, what, strings.Join(l.rec.lines, "\n"))
			}
			return
		case <-deadline:
			l.rec.mu.Lock()
			defer l.rec.mu.Unlock()
			l.t.Fatalf("waited for %q; lines:\n%s", what, strings.Join(l.rec.lines, "\n"))
		}
	}
}

// changes returns the lines of changes.
func (l *live) changes() []string {
	l.rec.mu.Lock()
	defer l.rec.mu.Unlock()
	var out []string
	for _, line := range l.rec.lines {
		if strings.Contains(line, " key=") {
			out = append(out, line)
		}
	}
	return out
}
