package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A CheckStep is a step of Check.
type CheckStep string

// The steps of Check.
const (
	CheckDir    CheckStep = "directory"  // it can be made, or is one that a broker may use
	CheckSpace  CheckStep = "free space" // there is more than the floor
	CheckListen CheckStep = "listen"     // the address is free
)

// CheckResult is what became of one step.
type CheckResult struct {
	Step  CheckStep
	Found string // one line; "" if Err is set
	Err   error
}

// Check tries what Start needs, and leaves nothing behind. It is for a broker that does not
// run; see Owner.
func Check(ctx context.Context, cfg Config) []CheckResult {
	var out []CheckResult
	step := func(s CheckStep, found string, err error) {
		out = append(out, CheckResult{s, found, err})
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = DefaultMinFree
	}
	dir, found, err := checkDir(cfg.Dir)
	step(CheckDir, found, err)
	if err == nil {
		found, err := checkSpace(dir, cfg.MinFree)
		step(CheckSpace, found, err)
	}
	found, err = checkListen(ctx, cfg.Listen)
	step(CheckListen, found, err)
	return out
}

// Owner returns the process that has the data directory open; 0: none has.
func Owner(dir string) (pid int, err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDONLY|syscall.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return 0, nil
	case err != nil:
		return 0, environment(fmt.Errorf("open lock file: %w", err), "the data directory must belong to the user that runs this process")
	}
	defer f.Close()
	text := make([]byte, 32)
	n, _ := f.Read(text)
	if pid, err = strconv.Atoi(strings.TrimSpace(string(text[:n]))); err != nil || pid < 1 {
		return 0, nil
	}
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return 0, nil
	}
	// A process has that number. For the moment that the lock is ours if it is another one,
	// no broker could start.
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err == nil {
		return 0, nil
	}
	return pid, nil
}

// checkDir tries to write in the data directory, or where it would be made. It returns the
// directory that it wrote in.
func checkDir(dir string) (tried, found string, err error) {
	if dir == "" {
		return "", "", environment(errors.New("no data directory is given"), "set a directory for the broker's log")
	}
	tried, err = nearest(dir)
	if err != nil {
		return "", "", environment(fmt.Errorf("look at data directory: %w", err), "the directory must be one, and readable")
	}
	if tried == filepath.Clean(dir) {
		if err := checkMode(dir); err != nil {
			return "", "", err
		}
		found = fmt.Sprintf("data directory %s can be written", dir)
	} else {
		found = fmt.Sprintf("data directory %s can be made in %s", dir, tried)
	}
	made, err := os.MkdirTemp(tried, ".tailrace-doctor-")
	if err == nil {
		err = os.Remove(made)
	}
	if err != nil {
		return "", "", environment(fmt.Errorf("write in %s: %w", tried, err), "the directory must be writable by the user that runs this process")
	}
	return tried, found, nil
}

// nearest returns dir, or the nearest directory above it that is there.
func nearest(dir string) (string, error) {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return "", fmt.Errorf("%s is no directory", dir)
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return "", err
		}
	}
}

// checkMode refuses what makeDir refuses.
func checkMode(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return environment(fmt.Errorf("look at data directory: %w", err), "the directory must be readable")
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return closable(dir)
}

// checkSpace compares the free space with the floor.
func checkSpace(dir string, floor int64) (found string, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "", environment(fmt.Errorf("look for free space in %s: %w", dir, err), "the directory must be readable")
	}
	free := int64(s.Bavail) * int64(s.Bsize)
	if free < floor {
		return "", environment(fmt.Errorf("the disk of %s has %d MiB free, less than the floor of %d MiB: nothing would be written", dir, free>>20, floor>>20),
			"free space, or lower broker.embedded.min_free")
	}
	return fmt.Sprintf("%d MiB free, the floor is %d MiB", free>>20, max(floor, 0)>>20), nil
}

// checkListen opens the address and closes it again.
func checkListen(ctx context.Context, listen string) (found string, err error) {
	host, port, err := loopback(listen)
	if err != nil {
		return "", err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return "", environment(fmt.Errorf("listen on %s port %d: %w", host, port, err), "another process listens there: give another port, or 0")
	}
	return fmt.Sprintf("%s is free", listen), l.Close()
}
