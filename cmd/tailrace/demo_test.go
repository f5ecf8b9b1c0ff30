package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// demoProcess is `tailrace demo`, with a temporary directory of its own.
type demoProcess struct {
	t       *testing.T
	cmd     *exec.Cmd
	dir     string
	out     lockedBuffer
	said    lockedBuffer
	reached chan struct{} // closed when the awaited text was said
	done    chan struct{}
}

// startDemo starts a demo; awaited is a text of its progress.
func startDemo(t *testing.T, awaited string, args ...string) *demoProcess {
	t.Helper()
	p := &demoProcess{t: t, dir: t.TempDir(), reached: make(chan struct{}), done: make(chan struct{})}
	for dir := p.dir; dir != filepath.Dir(dir) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // the server may run as another user
			t.Fatal(err)
		}
	}
	p.cmd = exec.Command(os.Args[0], append([]string{"demo"}, args...)...)
	p.cmd.Env = append(os.Environ(), asCommand+"=1", "TMPDIR="+p.dir)
	p.cmd.Stdout = &p.out
	progress, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(progress)
		for seen := false; lines.Scan(); {
			_, _ = p.said.Write(append(lines.Bytes(), '\n'))
			if !seen && strings.Contains(lines.Text(), awaited) {
				seen = true
				close(p.reached)
			}
		}
		_ = p.cmd.Wait() // the exit code is asked for below
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// after sends a signal once the awaited text was said.
func (p *demoProcess) after(s syscall.Signal) {
	p.t.Helper()
	select {
	case <-p.reached:
	case <-p.done:
	case <-time.After(patience):
	}
	_ = p.cmd.Process.Signal(s) // it may have ended: its exit code tells
}

// exit waits for the end and checks the exit code, and that nothing is left.
func (p *demoProcess) exit(want int) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(2 * patience):
		p.t.Fatalf("does not end\n%s", p.said.String())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		p.t.Errorf("exit code %d, want %d\n%s%s", got, want, p.out.String(), p.said.String())
	}
	if left, err := os.ReadDir(p.dir); err != nil || len(left) > 0 {
		p.t.Errorf("left behind: %v %v", left, err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range processes {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), p.dir) {
			p.t.Errorf("still runs: %q", text)
		}
	}
}

// The demo with a private server: both databases are equal, every kind of change has
// occurred, and nothing is left behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	p := startDemo(t, "", "--for", "8s", "-o", "json")
	p.exit(0)
	text := strings.TrimSpace(p.out.String())
	var got map[string]any
	if err := json.Unmarshal([]byte(text[strings.LastIndexByte(text, '\n')+1:]), &got); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for key, least := range map[string]float64{"snapshot_rows": 1000, "inserts": 100, "updates": 100, "deletes": 100, "transactions": 100, "ddl": 1, "applied": 1300} {
		if n, _ := got[key].(float64); n < least {
			t.Errorf("%s is %v, want at least %v", key, got[key], least)
		}
	}
	tables, _ := got["tables"].([]any)
	latency, _ := got["latency_ms"].(map[string]any)
	if got["equal"] != true || len(tables) != 8 || latency["p50"] == 0.0 || len(got) != 10 {
		t.Errorf("got %s", text)
	}
}

// An interrupt closes the shop and compares; one before the shop is open ends it. On a
// server that was there before, no database and no slot stays.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	pg := testenv.SharedPostgres(t)
	left := func() string {
		return query(t, pg, "postgres", `SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE 'tailrace\_demo\_%') || ' ' ||
			(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'tailrace\_demo\_%')`)
	}
	early := startDemo(t, "copying", "--postgres", pg.AdminURL("postgres"))
	early.after(syscall.SIGINT)
	early.exit(130)
	late := startDemo(t, " transactions (", "--postgres", pg.AdminURL("postgres"), "--for", "1h")
	late.after(syscall.SIGINT)
	late.exit(4) // it has not come to ALTER TABLE
	if got := left(); got != "0 0" {
		t.Errorf("databases and slots left: %s", got)
	}
}

// Without a server there is a message that says what to do.
func TestDemoWithoutServer(t *testing.T) {
	code, _, stderr := execute("demo", "--for", "1s", "--postgres", "postgres://u:p@"+freeAddress(t)+"/d")
	if code != 3 || !strings.Contains(stderr, "connect to PostgreSQL") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("got %d %s", code, stderr)
	}
	if code, _, stderr = execute("demo", "--for", "-1s"); code != 2 {
		t.Errorf("got %d %s", code, stderr)
	}
}
