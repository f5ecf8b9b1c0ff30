package samples

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tailrace/tailrace/deploy/internal/product"
	"github.com/tailrace/tailrace/deploy/testenv"
)

// patience is how long a test waits for something that must come.
const patience = time.Minute

// binary is the built product.
var binary string

// built runs the tests with the product built.
type built struct{ *testing.M }

func (b built) Run() int {
	dir, err := os.MkdirTemp("", "tailrace-samples-")
	if err == nil {
		binary, err = product.Build(context.Background(), dir, false)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := b.M.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestMain(m *testing.M) { testenv.Main(built{m}) }

// sample is one of them at work.
type sample struct {
	*testing.T
	*product.Product
	pg  *testenv.Postgres
	dir string            // in which it runs
	env map[string]string // what its configuration takes from the environment
	dbs map[string]string // database by the variable that has its URL
	to  map[string]*pgx.Conn
}

// start starts a sample: databases by the variable of their URL, each made by a file of SQL,
// and further variables.
func start(t *testing.T, name string, databases, more map[string]string) *sample {
	t.Helper()
	s := &sample{T: t, pg: testenv.SharedPostgres(t), dir: t.TempDir(), env: maps.Clone(more), dbs: map[string]string{}, to: map[string]*pgx.Conn{}}
	if s.env == nil {
		s.env = map[string]string{}
	}
	for variable, file := range databases {
		db := s.pg.CreateDatabase(t)
		s.dbs[variable], s.env[variable], s.to[variable] = db, s.pg.AdminURL(db), s.pg.Connect(t, db)
		s.file(variable, filepath.Join(name, file))
	}
	for _, variable := range []string{"BROKER_LISTEN", "REGISTRY_LISTEN", "HTTP_LISTEN"} {
		s.env[variable] = freeAddress(t)
	}
	config, err := filepath.Abs(filepath.Join(name, "tailrace.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if missing := slices.DeleteFunc(variables(t, name), func(v string) bool { return s.env[v] != "" }); len(missing) > 0 {
		t.Fatalf("the test sets no %v", missing)
	}
	var env []string
	for k, v := range s.env {
		env = append(env, k+"="+v)
	}
	s.Product = product.Of(binary, s.dir, config, s.env["HTTP_LISTEN"], env...)
	t.Cleanup(s.clean)
	s.run()
	return s
}

// run starts the process, again after it was killed or stopped.
func (s *sample) run() {
	s.Helper()
	if err := s.Start(); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	if err := s.Capturing(ctx); err != nil {
		s.Fatal(err)
	}
}

// clean ends the process and drops the slots, so that the server keeps no log for them.
func (s *sample) clean() {
	if err := s.Close(); err != nil {
		s.Error(err)
	}
	if s.Failed() {
		s.Logf("log:\n%s", s.Log(20000))
	}
	log := s.Log(1 << 30)
	for variable, value := range s.env {
		if strings.HasSuffix(variable, "_KEY") || strings.HasSuffix(variable, "_SECRET") || strings.HasSuffix(variable, "_URL") {
			if strings.Contains(log, value) {
				s.Errorf("what %s holds is in the log", variable)
			}
		}
	}
	for _, db := range s.dbs {
		err := s.pg.Exec(context.Background(), db, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active_pid IS NOT NULL`)
		if err != nil {
			s.Error(err)
		}
		drop := func() error {
			return s.pg.Exec(context.Background(), db, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()`)
		}
		if err := retry(drop); err != nil {
			s.Error(err)
		}
	}
}

// retry tries until there is no error any more.
func retry(try func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return err
		}
	}
}

// stop ends the process as an operator would.
func (s *sample) stop() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	if code, err := s.Stop(ctx); err != nil || code != 0 {
		s.Errorf("it ended with %d, %v", code, err)
	}
}

// file runs a file of SQL in the database of a variable.
func (s *sample) file(variable, path string) {
	s.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	s.exec(variable, string(text))
}

// exec runs statements in the database of a variable. Those of one text are one transaction.
func (s *sample) exec(variable string, statements ...string) {
	s.Helper()
	if err := s.pg.Exec(s.Context(), s.dbs[variable], statements...); err != nil {
		s.Fatal(err)
	}
}

// rows is what the last query of a text gives: a line for each row, its columns parted by |.
func (s *sample) rows(variable, text string) (string, error) {
	results, err := s.to[variable].PgConn().Exec(s.Context(), text).ReadAll()
	if err != nil {
		return "", err
	}
	var lines []string
	for _, r := range results {
		if len(r.FieldDescriptions) > 0 {
			lines = lines[:0]
		}
		for _, row := range r.Rows {
			fields := make([]string, len(row))
			for i, f := range row {
				if fields[i] = string(f); f == nil {
					fields[i] = "~"
				}
			}
			lines = append(lines, strings.Join(fields, "|"))
		}
	}
	return strings.Join(lines, "\n"), nil
}

// becomes waits until a query gives these lines.
func (s *sample) becomes(variable, query string, want ...string) {
	s.Helper()
	s.until(func() error {
		got, err := s.rows(variable, query)
		if text := strings.Join(want, "\n"); err == nil && got != text {
			err = fmt.Errorf("%s:\n%s\nwanted:\n%s", query, got, text)
		}
		return err
	})
}

// until waits until there is no error any more. It gives up early if the process has ended,
// or a part of it.
func (s *sample) until(check func() error) {
	s.Helper()
	gone := false
	err := retry(func() error {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-s.Done():
			gone = true
			return nil
		default:
		}
		if why := s.Stopped(s.Context()); why != "" {
			s.Fatalf("%v\nstopped: %s", err, why)
		}
		return err
	})
	if gone {
		err = errors.Join(errors.New("tailrace has ended"), check())
	}
	if err != nil {
		s.Fatal(err)
	}
}

// command runs a command beside the process and returns what it prints.
func (s *sample) command(code int, args ...string) string {
	s.Helper()
	stdout, stderr, got, err := s.Command(s.Context(), args...)
	if err != nil || got != code {
		s.Errorf("tailrace %v: %d, wanted %d: %v\n%s%s", args, got, code, err, stdout, stderr)
	}
	return stdout
}

// same waits until tables of two databases hold the same rows, as query gives them.
func (s *sample) same(source, target string, queries ...[2]string) {
	s.Helper()
	for _, q := range queries {
		s.until(func() error {
			want, err := s.rows(source, q[0])
			if err != nil {
				return err
			}
			got, err := s.rows(target, q[1])
			if err == nil && got != want {
				err = fmt.Errorf("%s:\n%s\nthe source has:\n%s", q[1], got, want)
			}
			return err
		})
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := testenv.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}
