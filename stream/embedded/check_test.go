package embedded_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailrace/tailrace/stream/embedded"
)

func TestCheck(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.MkdirAll(filepath.Join(open, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		cfg    embedded.Config
		failed embedded.CheckStep
		says   string
	}{
		{"new", embedded.Config{Dir: filepath.Join(t.TempDir(), "a", "b"), MinFree: 1}, "", ""},
		{"there", embedded.Config{Dir: t.TempDir(), MinFree: 1}, "", ""},
		{"a file", embedded.Config{Dir: file}, embedded.CheckDir, "no directory"},
		{"below a file", embedded.Config{Dir: filepath.Join(file, "below")}, embedded.CheckDir, "not a directory"},
		{"open to others", embedded.Config{Dir: open}, embedded.CheckDir, "holds other files"},
		{"no space", embedded.Config{Dir: t.TempDir(), MinFree: 1 << 60}, embedded.CheckSpace, "less than the floor"},
		{"port taken", embedded.Config{Dir: t.TempDir(), MinFree: 1, Listen: taken.Addr().String()}, embedded.CheckListen, "in use"},
		{"not loopback", embedded.Config{Dir: t.TempDir(), MinFree: 1, Listen: "0.0.0.0:0"}, embedded.CheckListen, "not on loopback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var failed []string
			for _, r := range embedded.Check(t.Context(), c.cfg) {
				if (r.Err == nil) == (r.Found == "") {
					t.Errorf("%s has %q and %v", r.Step, r.Found, r.Err)
				}
				if r.Err != nil {
					failed = append(failed, string(r.Step))
					if !strings.Contains(r.Err.Error(), c.says) {
						t.Errorf("%s says %q, want %q", r.Step, r.Err, c.says)
					}
				}
			}
			if got := strings.Join(failed, " "); got != string(c.failed) {
				t.Errorf("failed: %s, want %s", got, c.failed)
			}
			if left, _ := filepath.Glob(filepath.Join(c.cfg.Dir, "*")); c.name != "open to others" && len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := os.Stat(c.cfg.Dir); c.name == "new" && err == nil {
				t.Error("the directory was made")
			}
		})
	}
}

func TestOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	wantOwner := func(want int) {
		t.Helper()
		if pid, err := embedded.Owner(dir); err != nil || pid != want {
			t.Errorf("the owner is %d, %v, want %d", pid, err, want)
		}
	}
	wantOwner(0)
	b, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	wantOwner(os.Getpid())
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	wantOwner(0)
	if err := os.WriteFile(filepath.Join(dir, "tailrace.lock"), []byte(fmt.Sprint(1<<30)), 0o600); err != nil {
		t.Fatal(err)
	}
	wantOwner(0)
}
