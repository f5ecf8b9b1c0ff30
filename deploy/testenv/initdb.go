package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// tempDir is where directories of the server user go: os.TempDir, unless that user could
// not reach it.
func tempDir(cred *syscall.Credential) string {
	if dir := os.TempDir(); reachable(dir, cred) {
		return dir
	}
	return "/tmp"
}

// reachable says whether the server user may pass through path and all directories above
// it. Root's own clone in a directory of mode 0700 is the case that it is there for.
func reachable(path string, cred *syscall.Credential) bool {
	if cred == nil {
		return true
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	for {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if up := filepath.Dir(path); up != path {
			path = up
			continue
		}
		return true
	}
}

// postgresBin is the directory with a version's initdb and postgres, which the server
// user can reach.
func postgresBin(version int, cred *syscall.Credential) (string, error) {
	debian := fmt.Sprintf("/usr/lib/postgresql/%d/bin", version)
	if _, err := os.Stat(filepath.Join(debian, "postgres")); err == nil {
		return debian, nil
	}
	if version < 14 || version > 18 {
		return "", fmt.Errorf("find PostgreSQL %d: known are 14 to 18", version)
	}
	home := filepath.Join(Deps(), "postgres", fmt.Sprint(version))
	if err := need(filepath.Join(home, "bin", "postgres")); err != nil {
		return "", err
	}
	if reachable(home, cred) {
		return filepath.Join(home, "bin"), nil
	}
	return reachableCopy(home, version)
}

// reachableCopy copies a version's files to where every user can read them, once per
// machine and installation.
func reachableCopy(home string, version int) (string, error) {
	stamp, err := os.Stat(filepath.Join(home, "bin", "postgres"))
	if err != nil {
		return "", err
	}
	base := fmt.Sprintf("/tmp/tailrace-postgres-%d-%d-%d", version, os.Geteuid(), stamp.ModTime().UnixNano())
	err = once(base, func(dir string) error {
		return errors.Join(CopyTree(dir, home), os.Chmod(dir, 0o755))
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "bin"), ownedByUs(base)
}

// ownedByUs fails if another user of the machine has put something where we look for our
// own copy: programs in it will be run.
func ownedByUs(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() || !info.IsDir() {
		return fmt.Errorf("use %s: it is not a directory of ours", path)
	}
	return nil
}

// dataTemplate is a data directory as initdb leaves it, made once per version. Starting
// from a copy saves the second or two that initdb takes.
func dataTemplate(ctx context.Context, version int, bin string, cred *syscall.Credential) (string, error) {
	dir := filepath.Join(Deps(), "pgtemplate", fmt.Sprint(version))
	return dir, once(dir, func(dir string) error { return initdb(ctx, bin, dir, cred) })
}

// initdb makes a data directory as the server user and copies it to the directory to.
func initdb(ctx context.Context, bin, to string, cred *syscall.Credential) (err error) {
	tmp, err := os.MkdirTemp(tempDir(cred), "tailrace-initdb-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	pwfile := filepath.Join(tmp, "password")
	if err := os.WriteFile(pwfile, []byte(Password+"\n"), 0o600); err != nil {
		return err
	}
	if err := give(tmp, cred); err != nil {
		return err
	}
	data := filepath.Join(tmp, "data")
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "--username=postgres",
		"--pwfile="+pwfile, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w:\n%s", err, out)
	}
	return CopyTree(to, data)
}

// once makes the directory dir by fill, which writes to a new directory beside it, unless
// it is there already. Processes that call it at the same time wait for one another.
func once(dir string, fill func(dir string) error) (err error) {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	if err := fill(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return os.Rename(tmp, dir)
}
