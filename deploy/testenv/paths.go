package testenv

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Root is the module's root directory, found from the working directory upwards.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the module's root: no go.mod in the working directory or above it")
		}
		dir = up
	}
}

// Deps is the directory that `make deps` fills: the environment's TAILRACE_DEPS, else
// .deps in the module's root.
func Deps() string {
	if dir := os.Getenv("TAILRACE_DEPS"); dir != "" {
		return dir
	}
	root, err := Root()
	if err != nil {
		return ".deps"
	}
	return filepath.Join(root, ".deps")
}

// Python is the interpreter of the virtual environment that holds the packages of
// deploy/testenv/requirements.txt.
func Python() string { return filepath.Join(Deps(), "venv", "bin", "python") }

// Promtool checks and tests Prometheus' rules; `make deps` brings it.
func Promtool() string { return filepath.Join(Deps(), "prometheus", "usr", "bin", "promtool") }

// Unique is prefix, a hyphen and eight random hexadecimal digits: a name for a topic, a
// consumer group or a transactional id that no other test uses.
func Unique(prefix string) string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return prefix + "-" + hex.EncodeToString(b[:])
}

// need fails, with the way to mend it, if path does not exist.
func need(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("find %s: it is not there, run make deps", path)
	}
	return err
}
