package postgres

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// Rows look the same by chunks and by the log, and what is not written is not even read. A
// table whose key is masked is read whole, when the slot is made.
func TestLiveChoice(t *testing.T) {
	for _, version := range []int{14, 15, 16, 17, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			server := testenv.SharedPostgres(t)
			if version != 15 {
				t.Parallel()
				server = testenv.NewPostgres(t, testenv.PGOptions{Version: version})
			}
			testChoice(t, server)
		})
	}
}

func testChoice(t *testing.T, server *testenv.Postgres) {
	l := newLive(t, server, "CREATE TYPE mood AS ENUM ('canary', 'ok')",
		`CREATE TABLE plain (ssn text DEFAULT 'canary', id int PRIMARY KEY, born date NOT NULL DEFAULT '1999-09-09', score numeric(8,2), feels mood DEFAULT 'canary',
			tags text[], name varchar(50), raw bytea, doc jsonb NOT NULL DEFAULT '{"a":"canary"}')`,
		"ALTER TABLE plain REPLICA IDENTITY FULL", "CREATE TABLE keyed (email text PRIMARY KEY, n int)", "ALTER TABLE keyed REPLICA IDENTITY FULL",
		"INSERT INTO keyed VALUES ('canary-1', 1), ('canary-2', 2)")
	l.cfg.Columns = []Columns{
		{Table: "public.plain", Exclude: []string{"ssn"}, Mask: map[string]Mask{"born": {Kind: Redact}, "feels": {Kind: Redact}, "doc": {Kind: Constant, Text: "{}"}}},
		{Table: "public.*", Mask: map[string]Mask{"email": {Kind: HMAC, Key: testKey}, "score": {Kind: HMAC, Key: testKey}, "tags": {Kind: HMAC, Key: testKey},
			"raw": {Kind: HMAC, Key: testKey}, "name": {Kind: Truncate, Length: 1}}},
	}
	l.rec.onRaw = func(c *capture.Change) {
		if all := slices.Concat(c.Key, c.Value, c.NewKey, c.OldKey); bytes.Contains(all, []byte(hidden)) {
			t.Errorf("%c shows %q", c.Op, all)
		}
	}
	l.snapshot(false, nil)
	rows := l.changes()
	if len(rows) != 2 || !strings.HasPrefix(rows[0], "r public.keyed key={\"email\":\"") || !strings.Contains(rows[1], `"n":2`) {
		t.Errorf("the snapshot has %q", rows)
	}
	l.exec("INSERT INTO plain VALUES ('canary', 1, now(), 12.50, 'canary', '{canary}', 'ccanary', '\\x00ff'), (NULL, 2, now(), NULL, NULL, NULL, NULL, NULL)",
		"UPDATE keyed SET email = 'canary-3' WHERE n = 1", "DELETE FROM keyed WHERE n = 2")
	l.until("tombstone public.keyed", `newkey={"email":"`)
	deleted := l.until("d public.keyed", `"n":2`)
	key, _, _ := strings.Cut(deleted, " before=")
	if !strings.Contains(rows[1], strings.TrimPrefix(key, "d ")) {
		t.Errorf("%s does not have the key of %s", deleted, rows[1])
	}

	c := newChunks(l)
	chunked := c.lines("public.plain", 1)
	for i, line := range chunked {
		_, row, _ := strings.Cut(line, " before=null after=")
		row, _, _ = strings.Cut(row, " lsn=")
		l.until("c public.plain", fmt.Sprintf(`key={"id":%d}`, i+1), "after="+row)
	}
	if len(chunked) != 2 || !strings.Contains(chunked[0], `"born":null`) || !strings.Contains(chunked[0], `"name":"c"`) ||
		!strings.Contains(chunked[0], `"doc":"{}"`) || !strings.Contains(chunked[1], `"feels":"(redacted)"`) || !strings.Contains(chunked[1], `"raw":null`) {
		t.Errorf("chunks have %q", chunked)
	}
	if !slices.Contains(l.rec.hashes, c.routes.hashes[0]) {
		t.Error("chunks have another version than the log")
	}
	if _, err := c.plan("public.keyed"); err == nil || !strings.Contains(err.Error(), `column "email" of the key of table public.keyed is masked`) || !capture.IsFatal(err) {
		t.Errorf("chunks of a masked key: %v", err)
	}
	tables, err := l.source.Tables(t.Context())
	if err != nil || len(tables) != 2 || tables[0].Keyed == tables[1].Keyed {
		t.Errorf("%+v, %v", tables, err)
	}
	l.stop()
}

// A server's message about a value may quote it: it is not repeated.
func TestLiveErrorsQuoteNoValue(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'canary')",
		"CREATE FUNCTION public.loud(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', $1; END $$")
	c := newChunks(l)
	src, err := New(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := src.Prepare(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, condition := range []string{"v::int > 0", "v::date > now()", "public.loud(v)"} {
		r := c.mustPlan("public.t", func(t *capture.ChunkTable) { t.Where = condition })
		_, err := c.read(r)
		if err == nil || !capture.IsFatal(err) || strings.Contains(err.Error()+capture.HintOf(err), hidden) || !strings.Contains(err.Error(), "SQLSTATE") {
			t.Errorf("%s: %v", condition, err)
		}
	}
}

// Before anything is made: what is named must be there.
func TestLiveChoiceOfNothing(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY, v text)")
	for _, test := range []struct{ table, message string }{
		{"public.gone", "columns are chosen of table public.gone, which does not exist"}, {"public.t", `table public.t has no column "w"`}} {
		cfg := l.cfg
		cfg.Columns = []Columns{{Table: test.table, Exclude: []string{"w"}}}
		wantRefused(t, cfg, codeConfiguration, test.message, "")
	}
	if n := l.count("SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", l.cfg.Slot); n != 0 {
		t.Error("a slot was made")
	}
	var log said
	l.cfg.Columns, l.cfg.Log = []Columns{{Table: "public.*", Exclude: []string{"v", "w"}}}, slog.New(slog.NewTextHandler(&log, nil))
	l.start()
	l.exec("INSERT INTO t VALUES (1, 'a')")
	l.until("c public.t", `after={"id":1} `)
	l.stop()
	if log.count("columns=[w]") == 0 {
		t.Errorf("no warning of a column that no table has")
	}
}

// A column that the configuration names is renamed: its values do not go out under the new
// name.
func TestLiveRenamedColumn(t *testing.T) {
	l := newLive(t, testenv.SharedPostgres(t), "CREATE TABLE t (id int PRIMARY KEY, ssn text)")
	l.cfg.Columns = []Columns{{Table: "public.t", Exclude: []string{"ssn"}}}
	l.start()
	l.exec("INSERT INTO t VALUES (1, 'a')", "ALTER TABLE t RENAME ssn TO social", "INSERT INTO t VALUES (2, 'canary')")
	wantStop(t, l.wantEnd(), `table public.t has no column "ssn"`, "renamed")
	for _, line := range l.changes() {
		if strings.Contains(line, hidden) {
			t.Error(line)
		}
	}
}
