package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ErrLocked says that another process has the data directory open.
var ErrLocked = errors.New("data directory is in use")

const lockName = "tailrace.lock"

// lock is the right to use a data directory. The kernel keeps it (flock), so
// it ends with the process however that ends.
type lock struct{ file *os.File }

// takeLock takes the lock of dir. If another process has it, the error is an
// ErrLocked that names the process.
func takeLock(dir string) (*lock, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, environment(fmt.Errorf("open lock file: %w", err), "the data directory must belong to the user that runs this process")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, environment(fmt.Errorf("lock %s: %w", path, err), "the data directory must be on a local file system that knows flock")
		}
		return nil, lockedBy(f, dir)
	}
	l := &lock{file: f}
	if err := l.sign(); err != nil {
		l.release()
		return nil, environment(fmt.Errorf("write lock file: %w", err), "check that the disk is not full")
	}
	return l, nil
}

// sign writes our process id into the file, for those who find it locked.
func (l *lock) sign() error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// release gives the lock back. The file stays: to remove it would let a third
// process lock a file that a second one is about to lock.
func (l *lock) release() error { return l.file.Close() }

// lockedBy makes the error for a lock that is taken.
func lockedBy(f *os.File, dir string) error {
	text, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	who := "by another process"
	if err == nil {
		who = fmt.Sprintf("by process %d", pid)
	}
	return environment(fmt.Errorf("open %s: %w %s", dir, ErrLocked, who),
		"stop that process, or give this one another directory; if it has just been killed, try again")
}
