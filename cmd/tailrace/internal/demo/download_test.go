package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Without a server on the machine the demo downloads one, and it runs.
func TestDownload(t *testing.T) {
	dir, err := temporary()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	was := places
	places = nil
	defer func() { places = was }()
	path := t.TempDir() // where npm, node and a shell are, and no server
	for _, program := range []string{npm, node, "/bin/sh"} {
		if err := os.Symlink(program, filepath.Join(path, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", path)
	s, err := startServer(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.bin, dir) {
		t.Errorf("the server is in %s", s.bin)
	}
	u := s.url()
	conn, err := connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	var version string
	if err := conn.QueryRow(t.Context(), "SHOW server_version").Scan(&version); err != nil || !strings.HasPrefix(version, "18.") {
		t.Errorf("version %q, %v", version, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// Without a server and without npm it says what to install.
func TestNothingToRun(t *testing.T) {
	was := places
	places = nil
	defer func() { places = was }()
	t.Setenv("PATH", t.TempDir())
	_, err := startServer(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "there is none; download one") {
		t.Errorf("got %v", err)
	}
}
