package postgres

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// said is a log that a test reads.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) count(words string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), words)
}

// tables lists the tables as text, with whether they have a key.
func (l *live) tables() string {
	l.t.Helper()
	list, err := l.source.Tables(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	var words []string
	for _, c := range list {
		w := c.Namespace + "." + c.Name
		if !c.Keyed {
			w += " keyless"
		}
		if want := fmt.Sprint(l.count("SELECT $1::regclass::oid::int8", quoteTable(c.Namespace, c.Name))); c.Identity != want {
			l.t.Errorf("%s has identity %s, want %s", c.Name, c.Identity, want)
		}
		words = append(words, w)
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// New tables come to the publication while the log is read; one that cannot does not keep
// the others out, and is told of once.
func TestLiveTables(t *testing.T) {
	var log said
	l := newLive(t, testenv.SharedPostgres(t), "CREATE SCHEMA app", "CREATE TABLE app.a (id int PRIMARY KEY)", "CREATE TABLE app.named (id int PRIMARY KEY)")
	l.cfg.Tables = []string{"app.*", "app.named"}
	l.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	l.start()
	l.exec("INSERT INTO app.a VALUES (1)")
	l.until("c app.a")
	l.exec("CREATE TABLE app.keyless (id int)", "CREATE TABLE app.b (id int PRIMARY KEY)", "CREATE TABLE elsewhere (id int PRIMARY KEY)",
		"CREATE TABLE app.whole (id int)", "ALTER TABLE app.whole REPLICA IDENTITY FULL", "CREATE TABLE app.late (id int PRIMARY KEY DEFERRABLE)",
		"CREATE TABLE app.gone (id int PRIMARY KEY)", "DROP TABLE app.named")
	const want = "app.a, app.b, app.gone, app.whole keyless"
	var both sync.WaitGroup
	for range 2 { // at once, and while the log's reader describes a table
		both.Go(func() {
			for range 3 {
				if got := l.tables(); got != want && got != strings.Replace(want, "app.gone, ", "", 1) {
					t.Errorf("got %s", got)
				}
			}
		})
		both.Wait()
	}
	if log.count("would fail on app.keyless") != 1 || log.count("would fail on app.late") != 1 || log.count("there is no table app.named") != 1 {
		t.Errorf("said: %s", log.b.String())
	}
	l.exec("INSERT INTO app.b VALUES (2)", "INSERT INTO elsewhere VALUES (1)", "INSERT INTO app.whole VALUES (1)")
	l.until("c app.b", `"id":2`)
	l.until("c app.whole")
	l.exec("ALTER TABLE app.gone RENAME TO renamed", "ALTER TABLE app.renamed SET SCHEMA public")
	if got, want := l.tables(), "app.a, app.b, app.whole keyless"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	l.exec("ALTER TABLE app.keyless ADD PRIMARY KEY (id)")
	if got, want := l.tables(), "app.a, app.b, app.keyless, app.whole keyless"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A publication of somebody else's is listed as it is; one that is gone ends the capture.
func TestLiveTablesOfOthers(t *testing.T) {
	var log said
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE a (id int PRIMARY KEY)",
		"CREATE TABLE n (id int NOT NULL, v int)", "ALTER TABLE n REPLICA IDENTITY NOTHING",
		"CREATE TABLE parts (a int PRIMARY KEY, b text) PARTITION BY RANGE (a)", "CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10)")
	l.exec("CREATE PUBLICATION " + quoteIdent(l.cfg.Publication) + " FOR TABLE a, n, parts")
	l.cfg.CreatePublication, l.cfg.Tables = false, []string{"public.a", "public.n", "public.pa*"}
	l.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	l.start()
	l.exec("INSERT INTO a VALUES (1)")
	l.until("c public.a")
	l.exec("CREATE TABLE pay (id int PRIMARY KEY)")
	for range 2 {
		if got, want := l.tables(), "public.a, public.n keyless, public.parts1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if log.count("does not hold public.pay") != 1 {
		t.Errorf("said: %s", log.b.String())
	}
	l.stop()
	l.exec("DROP PUBLICATION " + quoteIdent(l.cfg.Publication))
	_, err := l.source.Tables(t.Context())
	wantStop(t, err, "does not exist any more", "cannot be read")
	if !capture.IsFatal(err) {
		t.Error("not fatal")
	}
	if err := l.source.Close(); err != nil {
		t.Error(err)
	}
}
