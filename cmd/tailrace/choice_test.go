package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/show"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// sighting is where a canary was seen, with what stands around it.
type sighting struct{ where, what string }

// sightings collects what a capture leaves anywhere, and looks for canaries in it.
type sightings struct {
	canaries []string // what is looked for; nil: "canary"
	seen     []sighting
	files    int
}

func (s *sightings) look(where string, b []byte) {
	canaries := s.canaries
	if canaries == nil {
		canaries = []string{"canary"}
	}
	for _, canary := range canaries {
		for rest := b; ; {
			i := bytes.Index(rest, []byte(canary))
			if i < 0 {
				break
			}
			s.seen = append(s.seen, sighting{where, fmt.Sprintf("%q", rest[max(0, i-60):min(len(rest), i+60)])})
			rest = rest[i+1:]
		}
	}
}

// disk looks into every file below a directory. Batches are not compressed.
func (s *sightings) disk(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		s.files++
		s.look("file "+filepath.Base(filepath.Dir(path)), b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// schemas looks into every schema of the registry.
func (s *sightings) schemas(t *testing.T, url string) {
	t.Helper()
	get := func(path string) []byte {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
		}
		return b.Bytes()
	}
	var subjects []string
	if err := json.Unmarshal(get("/subjects"), &subjects); err != nil || len(subjects) < 4 {
		t.Fatalf("subjects %q, %v", subjects, err)
	}
	for _, subject := range subjects {
		s.look("schema", get("/subjects/"+subject+"/versions/latest"))
	}
}

// in counts the sightings whose place begins so.
func (s *sightings) in(where string) (n int) {
	for _, seen := range s.seen {
		if strings.HasPrefix(seen.where, where) {
			n++
		}
	}
	return n
}

// canaryColumns leaves out or masks all that holds a canary.
const canaryColumns = `, columns: [
      { table: public.customers, exclude: [ssn, big, born], mask: { mood: redact, note: { constant: "-" }, weight: redact } },
      { table: "public.*", mask: { email: { hmac: "${env:HMAC_KEY}" }, phone: redact, name: { truncate: 1 }, tags: { hmac: "${env:HMAC_KEY}" } } } ]`

var canaryTables = []string{
	"CREATE TYPE mood AS ENUM ('canary-label', 'ok')",
	`CREATE TABLE customers (id int PRIMARY KEY, ssn text DEFAULT 'canary-default', email text DEFAULT 'canary-default', phone text NOT NULL DEFAULT 'canary-default',
		name text, note varchar(40) DEFAULT 'canary-default', mood mood DEFAULT 'canary-label', tags text[], big text, born text, weight numeric(6,2), amount numeric(8,2) NOT NULL, plain text)`,
	"ALTER TABLE customers ALTER big SET STORAGE EXTERNAL", "ALTER TABLE customers ALTER email SET STORAGE EXTERNAL", "ALTER TABLE customers REPLICA IDENTITY FULL",
	`INSERT INTO customers SELECT i, 'canary-ssn', 'canary-mail-' || i, 'canary-phone', 'ccanary', 'canary-note', 'canary-label', '{canary-tag}', 'canary-big', 'canary-born', 1.5, 2.5, 'seen-read'
		FROM generate_series(1, 3000) i`,
	"CREATE TABLE accounts (email text PRIMARY KEY, phone text)", "ALTER TABLE accounts REPLICA IDENTITY FULL", "INSERT INTO accounts VALUES ('canary-key-1', 'canary-phone'), ('canary-key-2', NULL)",
	"CREATE TABLE visits (phone text, plain text)", "ALTER TABLE visits REPLICA IDENTITY FULL", "INSERT INTO visits VALUES ('canary-phone', 'seen-visit')",
}

// canaryChanges touch every way that a value can take: inserts, updates with and without the
// large values in them, key changes, deletes with whole old rows.
var canaryChanges = []string{
	"INSERT INTO customers (id, amount, plain, big, email) VALUES (9001, 1, 'seen-insert', repeat('canary-big', 1000), repeat('canary-mail', 1000))",
	"UPDATE customers SET phone = 'canary-other', plain = 'seen-update' WHERE id = 9001",
	"UPDATE customers SET id = 9002 WHERE id = 9001", "DELETE FROM customers WHERE id = 9002",
	"UPDATE accounts SET email = 'canary-key-3' WHERE email = 'canary-key-1'", "DELETE FROM accounts WHERE email = 'canary-key-2'",
	"UPDATE visits SET phone = 'canary-other'", "DELETE FROM visits", "INSERT INTO visits VALUES ('canary-last', 'seen-last')",
}

// canaryRun captures the tables with what there is to provoke, and looks everywhere.
func canaryRun(t *testing.T, columns string) *sightings {
	t.Helper()
	t.Setenv("HMAC_KEY", "canary-hmac-key-4711")
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, canaryTables...)
	dir, registry := filepath.Join(t.TempDir(), "data"), freeAddress(t)
	s := settings{name: testenv.Unique("mask"), url: pg.AdminURL(db), postgres: columns, more: "    compression: none\n    backfill: { readers: 2 }\n",
		broker:   fmt.Sprintf("{ embedded: { dir: %q, listen: %q, min_free: 1 } }", dir, freeAddress(t)),
		registry: fmt.Sprintf("{ serve: %q, topic: %s }", registry, testenv.Unique("schemas"))}
	p := s.configure(t).start(t)
	p.ready()
	out := &sightings{}
	ask := func() {
		for _, path := range []string{"/status", "/metrics"} {
			_, body := p.get(path)
			if body == "" {
				t.Errorf("%s says nothing", path)
			}
			out.look(path, []byte(body))
		}
	}
	var initial []capture.Backfill
	p.until("read", func() bool {
		initial = p.ask(t, 0, "list").Result.Backfills
		return len(initial) > 0 && !slices.ContainsFunc(initial, func(b capture.Backfill) bool { return b.State != capture.BackfillDone })
	})
	sql(t, pg, db, canaryChanges...)
	p.untilState(p.backfill("--table", "public.customers", "--where", "plain = 'seen-read'"), capture.BackfillDone)
	failed := p.failing("--table", "public.customers", "--where", "ssn::int > 0")
	out.look("error", []byte(failed.Error+failed.Hint))
	if columns != "" {
		masked := p.failing("--table", "public.accounts")
		if len(initial) != 1 || !strings.Contains(masked.Error, "masked") {
			t.Errorf("the table with a masked key: %+v, %+v", initial, masked)
		}
	}
	records := map[string][]show.Record{}
	p.until("through with the changes", func() bool {
		for _, table := range []string{"customers", "accounts", "visits"} {
			records[table] = p.tail(t, s.name+".public."+table, 1<<30, "--to-end", "--from", "beginning")
		}
		return strings.Contains(string(records["visits"][len(records["visits"])-1].Value), "seen-last")
	})
	for table, list := range records {
		for _, r := range list {
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			out.look("topic "+table, b)
		}
	}
	if n := len(records["customers"]); n < 6000 {
		t.Errorf("%d records of customers", n)
	}
	out.schemas(t, "http://"+registry)
	ask()
	sql(t, pg, db, "INSERT INTO customers (id, amount, ssn) VALUES (9003, 'NaN', 'canary-ssn')") // the error that ends the run
	if code := p.exit(); code != 1 || !strings.Contains(p.log.String(), "cannot be represented") {
		t.Errorf("it ended with %d", code)
	}
	out.look("log", []byte(p.log.String()))
	out.disk(t, dir)
	out.control(t, dir)
	dropSlot(t, pg, db, s.slot())
	return out
}

// control sees that what may be seen is there to be found, in files and the state.
func (s *sightings) control(t *testing.T, dir string) {
	t.Helper()
	for _, what := range []string{"seen-read", "seen-insert", "seen-update", "seen-last", "table/public.customers", "chunk/"} {
		found := false
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || found {
				return err
			}
			b, err := os.ReadFile(path)
			found = bytes.Contains(b, []byte(what))
			return err
		})
		if err != nil || !found {
			t.Errorf("%q is not on the disk: the search cannot see: %v", what, err)
		}
	}
}

// A value that is masked or left out is in no topic, state, schema, log, metric or status,
// nor in any other file, whatever becomes of its row. Without masks the same search finds it.
func TestMaskedValuesAreNowhere(t *testing.T) {
	out := canaryRun(t, canaryColumns)
	for _, s := range out.seen {
		t.Errorf("%s: %s", s.where, s.what)
	}
	clear := canaryRun(t, "")
	for _, where := range []string{"file", "topic customers", "topic accounts", "topic visits", "schema"} {
		if clear.in(where) == 0 {
			t.Errorf("without masks nothing is found in %s", where)
		}
	}
	for _, where := range []string{"log", "error", "/status", "/metrics"} {
		if n := clear.in(where); n > 0 {
			t.Errorf("without masks values are in %s: %v", where, clear.seen)
		}
	}
}

// What is written in place of values, and that another choice is another version: what was
// read before it stays as it was.
func TestChoiceOfColumnsChanges(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db := pg.CreateDatabase(t)
	sql(t, pg, db, "CREATE TABLE orders (id int PRIMARY KEY, email text, note text)", "INSERT INTO orders VALUES (1, 'a', 'x')")
	s := settings{name: testenv.Unique("mask"), url: pg.AdminURL(db), broker: embeddedBroker(t), registry: ownRegistry(t)}
	in := s.configure(t)
	p := in.start(t)
	p.ready()
	p.tail(t, s.name+".public.orders", 1)
	p.stop(syscall.SIGTERM, 0)

	masked := `, columns: [{ table: "public.*", exclude: [note], mask: { email: { hmac: "0123456789abcdef" } } }] }`
	text, err := os.ReadFile(in.file)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(slot: \w+) }`).ReplaceAll(text, []byte("$1"+masked))
	if err := os.WriteFile(in.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	sql(t, pg, db, "INSERT INTO orders VALUES (2, 'a', 'y')")
	p = in.start(t)
	records := p.tail(t, s.name+".public.orders", 2, "--from", "beginning")
	p.stop(syscall.SIGTERM, 0)
	var was, is struct{ After map[string]any }
	if err := json.Unmarshal(records[0].Value, &was); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(records[1].Value, &is); err != nil {
		t.Fatal(err)
	}
	const sum = "0c806ca38a87cad91ed9f55abcb2a45358586aff964a56d422066dc2b6c0e0ff" // of a, by openssl dgst
	if len(was.After) != 3 || was.After["email"] != "a" || len(is.After) != 2 || is.After["email"] != sum || is.After["id"] != 2.0 {
		t.Errorf("%v, then %v", was.After, is.After)
	}
	dropSlot(t, pg, db, s.slot())
}
