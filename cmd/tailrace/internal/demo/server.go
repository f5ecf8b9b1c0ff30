package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// oldest is the first PostgreSQL that can be captured.
const oldest = 14

// places are where packages put the server's programs, if not into PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin",
	"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// server is a private PostgreSQL in a directory. It listens on loopback only, for one
// user with a random password, and does not outlive this process.
type server struct {
	dir      string // its own, with the data directory in it
	bin      string
	cred     *syscall.Credential // nil: our own user
	password string
	port     int
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
}

// startServer makes and starts a server below base and returns when it takes connections.
// The caller must stop it.
func startServer(ctx context.Context, base string) (*server, error) {
	bin, err := findPrograms(ctx)
	if errors.Is(err, errNoServer) {
		bin, err = downloaded(ctx, base, err)
	}
	if err != nil {
		return nil, err
	}
	s := &server{dir: filepath.Join(base, "postgres"), bin: bin, password: rand.Text()}
	if s.cred, err = serverUser(); err != nil {
		return nil, err
	}
	if err := s.create(ctx); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		if err = s.start(ctx); err == nil {
			return s, nil
		}
		if try == 3 || ctx.Err() != nil || !strings.Contains(err.Error(), "Address already in use") {
			return nil, err
		}
	}
}

// findPrograms returns the directory with the newest usable initdb and postgres.
func findPrograms(ctx context.Context) (string, error) {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, place := range places {
		found, _ := filepath.Glob(place) // the patterns are right
		dirs = append(dirs, found...)
	}
	best, bestVersion := "", oldest-1
	for _, dir := range dirs {
		if v := versionOf(ctx, dir); v > bestVersion {
			best, bestVersion = dir, v
		}
	}
	if best == "" {
		return "", &environmentError{"find a PostgreSQL server of version 14 or newer",
			"install one (Debian, Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql), or npm, to download one; or name a running one with --postgres", errNoServer}
	}
	return best, nil
}

// errNoServer: this machine has no PostgreSQL that would do.
var errNoServer = errors.New("there is none")

// downloaded returns where the programs are that were fetched because of none, the error
// that says that there are none.
func downloaded(ctx context.Context, base string, none error) (string, error) {
	bin, err := downloadPrograms(ctx, base)
	if err == nil && versionOf(ctx, bin) < oldest {
		err = errors.New("it does not run here")
	}
	if err != nil {
		return "", fmt.Errorf("%w; download one: %w", none, err)
	}
	return bin, nil
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// versionOf returns the major version of the server in dir; 0: there is none.
func versionOf(ctx context.Context, dir string) int {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	m := versionPattern.FindSubmatch(out)
	if err != nil || m == nil {
		return 0
	}
	v, _ := strconv.Atoi(string(m[1])) // digits
	return v
}

// serverUser is who the server runs as: PostgreSQL refuses to run as root, so that root
// hands it to the machine's user postgres, or nobody.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, &environmentError{"find a user to run PostgreSQL as", "PostgreSQL does not run as root: start the demo as another user, or name a running server with --postgres", errors.New("there is neither postgres nor nobody")}
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// create makes the data directory.
func (s *server) create(ctx context.Context) error {
	secret := filepath.Join(s.dir, "password")
	if err := errors.Join(os.Mkdir(s.dir, 0o700), os.WriteFile(secret, []byte(s.password+"\n"), 0o600)); err != nil {
		return err
	}
	if s.cred != nil {
		for _, path := range []string{secret, s.dir} {
			if err := os.Chown(path, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "-D", s.data(), "--username=postgres",
		"--pwfile="+secret, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	s.prepare(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return &environmentError{"create a PostgreSQL data directory", "see what initdb says", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))}
	}
	return nil
}

// prepare sets what every program of the server runs with: its user, and a process group
// of its own, so that Ctrl-C does not end it before us.
func (s *server) prepare(cmd *exec.Cmd) {
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
}

// start starts the server on a free port.
func (s *server) start(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "server.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-h", "127.0.0.1", "-k", ""}
	for _, setting := range []string{
		"wal_level=logical", "fsync=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=40", "autovacuum=off",
		"max_wal_senders=8", "max_replication_slots=8", "timezone=UTC", "log_timezone=UTC", "logging_collector=off",
	} {
		args = append(args, "-c", setting)
	}
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), args...)
	s.prepare(s.cmd)
	dieWithParent(s.cmd.SysProcAttr)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.done = make(chan struct{})
	started := make(chan error)
	go s.attend(started)
	if err := <-started; err != nil {
		return &environmentError{"start PostgreSQL", "", err}
	}
	if err := s.ready(ctx); err != nil {
		return errors.Join(err, s.stop())
	}
	return nil
}

// attend starts the process and waits for it, on one thread: the kernel's signal at our
// end comes when the thread ends that started it.
func (s *server) attend(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := s.cmd.Start()
	started <- err
	if err == nil {
		_ = s.cmd.Wait() // how it ended is in its log
	}
	close(s.done)
}

// ready waits until the server says in its directory that it takes connections.
func (s *server) ready(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, _ := os.ReadFile(filepath.Join(s.data(), "postmaster.pid")) // not there yet
		lines := strings.Split(string(text), "\n")
		if len(lines) >= 8 && lines[0] == strconv.Itoa(s.cmd.Process.Pid) && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			said, _ := os.ReadFile(filepath.Join(s.dir, "server.log"))
			return &environmentError{"start PostgreSQL", "see what the server says", errors.New(strings.TrimSpace(string(said)))}
		}
	}
}

// patience is how long a server gets to shut down.
const patience = 20 * time.Second

// stop ends the server and waits for its end.
func (s *server) stop() error {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop PostgreSQL: %w", err)
		}
		select {
		case <-s.done:
			return nil
		case <-time.After(patience):
		}
	}
	return fmt.Errorf("stop PostgreSQL: process %d does not end", s.cmd.Process.Pid)
}

// url is the server's address.
func (s *server) url() *url.URL {
	return &url.URL{Scheme: "postgres", User: url.UserPassword("postgres", s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/postgres", RawQuery: "sslmode=disable"}
}

// environmentError is a machine or a server that is not as the demo needs it.
type environmentError struct {
	what, hint string
	err        error
}

// Error implements error.
func (e *environmentError) Error() string {
	return e.what + ": " + e.err.Error()
}

// Unwrap gives the cause.
func (e *environmentError) Unwrap() error { return e.err }

// Environment asks for the exit code of an environment that is not as needed.
func (e *environmentError) Environment() bool { return true }

// Hint says what to do.
func (e *environmentError) Hint() string { return e.hint }
