package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// Password is the password of the superuser "postgres" of every server started here.
const Password = "tailrace-test"

// PGOptions says which server is wanted; its zero value is a PostgreSQL 15 that is ready
// for logical decoding.
type PGOptions struct {
	Version  int               // 14 to 18; 0 means 15
	Settings map[string]string // server settings, over those of defaultSettings
	Durable  bool              // with fsync; without it a server survives SIGKILL, but not the machine's end
	Dir      string            // an empty or new directory, kept at Close; "": a temporary one
}

// Postgres is one private server. Its exported fields are set once, by StartPostgres.
// Stop, Start and Close must not be called at the same time as one another.
type Postgres struct {
	Port    int    // on 127.0.0.1
	Dir     string // holds data (the data directory), the Unix socket and server.log
	Version int

	bin     string
	opts    PGOptions
	cred    *syscall.Credential
	proc    *Process
	keepDir bool
}

func defaultSettings(durable bool) map[string]string {
	s := map[string]string{
		"listen_addresses":                    "127.0.0.1",
		"wal_level":                           "logical",
		"max_wal_senders":                     "20",
		"max_replication_slots":               "20",
		"wal_sender_timeout":                  "10s",
		"max_connections":                     "60",
		"shared_buffers":                      "64MB",
		"timezone":                            "UTC",
		"log_timezone":                        "UTC",
		"log_line_prefix":                     "%m [%p] %q%u@%d ",
		"autovacuum_naptime":                  "1h",
		"max_parallel_maintenance_workers":    "0",
		"max_logical_replication_workers":     "0",
		"restart_after_crash":                 "off",
		"logging_collector":                   "off",
		"max_slot_wal_keep_size":              "-1",
		"max_prepared_transactions":           "10",
		"synchronous_commit":                  "on",
		"unix_socket_permissions":             "0700",
		"log_autovacuum_min_duration":         "-1",
		"idle_in_transaction_session_timeout": "0",
	}
	if !durable {
		s["fsync"] = "off"
		s["full_page_writes"] = "off"
	}
	return s
}

// StartPostgres starts a server and returns once it takes connections. The caller must
// Close it. A missing version is an error that names `make deps`.
func StartPostgres(ctx context.Context, o PGOptions) (*Postgres, error) {
	if o.Version == 0 {
		o.Version = 15
	}
	cred, err := serverUser()
	if err != nil {
		return nil, err
	}
	bin, err := postgresBin(o.Version, cred)
	if err != nil {
		return nil, err
	}
	p := &Postgres{Version: o.Version, Dir: o.Dir, keepDir: o.Dir != "", bin: bin, opts: o, cred: cred}
	if err := p.create(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	for try := 1; ; try++ {
		if p.Port, err = FreePort(); err == nil {
			err = p.startOn(ctx)
		}
		if err == nil {
			return p, nil
		}
		if try == bindTries || !strings.Contains(p.Log(), "Address already in use") {
			return nil, errors.Join(err, p.Close())
		}
	}
}

// create lays the server's directory from the version's template.
func (p *Postgres) create(ctx context.Context) error {
	if p.Dir == "" {
		dir, err := os.MkdirTemp(tempDir(p.cred), "tailrace-pg-")
		if err != nil {
			return err
		}
		p.Dir = dir
	} else if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return err
	}
	template, err := dataTemplate(ctx, p.Version, p.bin, p.cred)
	if err != nil {
		return err
	}
	if err := CopyTree(p.data(), template); err != nil {
		return fmt.Errorf("copy the template of a data directory: %w", err)
	}
	return give(p.Dir, p.cred)
}

func (p *Postgres) data() string { return filepath.Join(p.Dir, "data") }

// startOn writes the configuration for p.Port and starts the server.
func (p *Postgres) startOn(ctx context.Context) error {
	settings := defaultSettings(p.opts.Durable)
	for k, v := range p.opts.Settings {
		settings[k] = v
	}
	settings["port"] = fmt.Sprint(p.Port)
	settings["unix_socket_directories"] = p.Dir
	lines := make([]string, 0, len(settings))
	for k, v := range settings {
		lines = append(lines, k+" = '"+strings.ReplaceAll(v, "'", "''")+"'\n")
	}
	sort.Strings(lines)
	conf := filepath.Join(p.data(), "postgresql.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "")), 0o600); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Start starts the stopped server again, on the same port and directory, and returns once
// it takes connections.
func (p *Postgres) Start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(p.Dir, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data())
	cmd.Dir = p.data()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Setpgid: true}
	if p.proc, err = StartProcess(cmd, syscall.SIGQUIT); err != nil {
		return err
	}
	return p.waitReady(ctx)
}

// waitReady watches the status line of postmaster.pid, as pg_ctl does.
func (p *Postgres) waitReady(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
		lines := strings.Split(string(text), "\n")
		if err == nil && len(lines) >= 8 && lines[0] == fmt.Sprint(p.proc.Pid()) && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.proc.Done():
			return fmt.Errorf("start PostgreSQL %d: it ended (%v):\n%s", p.Version, p.proc.State(), p.Log())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("start PostgreSQL %d: %w:\n%s", p.Version, ctx.Err(), p.Log()), p.proc.Kill())
		}
	}
}

// Log is the end of what the server wrote, at most 8 KiB.
func (p *Postgres) Log() string {
	return tailOf(filepath.Join(p.Dir, "server.log"), 8<<10)
}

func tailOf(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text[max(0, len(text)-n):])
}

// Stop ends the server and returns once it is down. Modes "smart", "fast" and "immediate"
// are pg_ctl's (the same signals); "kill" ends every process of the server with SIGKILL.
// When ctx ends first, the server is left as it is and ctx's error is returned.
func (p *Postgres) Stop(ctx context.Context, mode string) error {
	signals := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}
	if mode == "kill" {
		return p.kill()
	}
	sig, ok := signals[mode]
	if !ok {
		return fmt.Errorf("stop PostgreSQL: no mode %q", mode)
	}
	if err := p.proc.Signal(sig); err != nil {
		return err
	}
	select {
	case <-p.proc.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop PostgreSQL (%s): %w", mode, ctx.Err())
	}
}

// kill stops the postmaster first, so that it starts no further process while the others
// are being killed.
func (p *Postgres) kill() error {
	if err := p.proc.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	children, err := childrenOf(p.proc.Pid())
	if err != nil {
		return err
	}
	for _, pid := range children {
		syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	if err := p.proc.Kill(); err != nil {
		return err
	}
	return waitGone(children)
}

// childrenOf lists the direct children of a process that is stopped.
func childrenOf(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var child, parent int
		var state string
		// "pid (name) state ppid …"; the name may hold anything, also parentheses.
		end := strings.LastIndexByte(string(text), ')')
		if _, err := fmt.Sscan(string(text[end+1:]), &state, &parent); err != nil || parent != pid {
			continue
		}
		if _, err := fmt.Sscan(string(text), &child); err == nil {
			out = append(out, child)
		}
	}
	return out, nil
}

// waitGone waits until the processes are gone or nothing but zombies: only then has the
// kernel released the shared memory that would make a new server refuse to start.
func waitGone(pids []int) error {
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range pids {
		for running(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("kill PostgreSQL: process %d is still there", pid)
			}
			<-tick.C
		}
	}
	return nil
}

func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
	return !strings.HasPrefix(strings.TrimSpace(rest), "Z")
}

// Reload makes the server read its configuration again.
func (p *Postgres) Reload(context.Context) error { return p.proc.Signal(syscall.SIGHUP) }

// Close ends the server, if it runs, and removes its directory, unless the caller chose
// one.
func (p *Postgres) Close() error {
	var err error
	if p.proc != nil {
		err = p.kill()
	}
	if !p.keepDir && p.Dir != "" {
		err = errors.Join(err, os.RemoveAll(p.Dir))
	}
	return err
}

// URL is a connection string for user, with password, to db. An empty password is left
// out.
func (p *Postgres) URL(user, password, db string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Host: fmt.Sprintf("127.0.0.1:%d", p.Port), Path: "/" + db, RawQuery: "sslmode=disable"}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

// AdminURL is the superuser's connection string to db.
func (p *Postgres) AdminURL(db string) string { return p.URL("postgres", Password, db) }
