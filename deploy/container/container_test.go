package container

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tailrace/tailrace/deploy/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// patience is how long a test waits for something that must come.
const patience = time.Minute

// image is what an engine would make of the file.
type image struct {
	*testing.T
	stage
	root     string // of its file system
	uid, gid int
}

// build runs the file's build command as it stands, on what .dockerignore lets through, and
// lays out the root with what the file copies.
func build(t *testing.T, version string) *image {
	t.Helper()
	s := stages(t)
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", s[0].last(t, "RUN"))
	cmd.Dir = context(t)
	cmd.Env = append(os.Environ(), "VERSION="+version, "COMMIT=abcdef", "OUT="+out)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, said)
	}
	i := &image{T: t, stage: s[1], root: filepath.Join(t.TempDir(), "root")}
	if _, err := fmt.Sscanf(i.last(t, "USER"), "%d:%d", &i.uid, &i.gid); err != nil {
		t.Fatal(err)
	}
	for _, copied := range i.all("COPY") {
		i.copy(strings.Fields(copied), out)
	}
	return i
}

// copy does what a COPY says. What the build made is in out, all else is this machine's.
func (i *image) copy(args []string, out string) {
	i.Helper()
	uid, gid := 0, 0
	for strings.HasPrefix(args[0], "--") {
		if owner, ok := strings.CutPrefix(args[0], "--chown="); ok {
			if _, err := fmt.Sscanf(owner, "%d:%d", &uid, &gid); err != nil {
				i.Fatal(err)
			}
		}
		args = args[1:]
	}
	from, to := args[0], filepath.Join(i.root, args[1])
	if rel, ok := strings.CutPrefix(from, "/out/"); ok {
		from = filepath.Join(out, rel)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		i.Fatal(err)
	}
	if err := testenv.CopyTree(to, from); err != nil {
		i.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(to, uid, gid); err != nil {
			i.Fatal(err)
		}
	}
}

// inside is a command in the image, as its user, with nothing but the image's environment
// and env. Who is not root becomes that user in a user namespace.
func (i *image) inside(args []string, env ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = i.last(i.T, "WORKDIR")
	cmd.Env = append(i.all("ENV"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: i.root}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(i.uid), Gid: uint32(i.gid)}
		return cmd
	}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: i.uid, HostID: os.Geteuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: i.gid, HostID: os.Getegid(), Size: 1}}
	return cmd
}

// entry is a command line as the engine makes it: the entry point, and arguments in place of
// the image's own.
func (i *image) entry(args ...string) []string {
	if len(args) == 0 {
		args = words(i.T, i.last(i.T, "CMD"))
	}
	return append(words(i.T, i.last(i.T, "ENTRYPOINT")), args...)
}

// healthy runs the health check.
func (i *image) healthy(env ...string) bool {
	i.Helper()
	_, command, ok := strings.Cut(i.last(i.T, "HEALTHCHECK"), " CMD ")
	if !ok {
		i.Fatal("the health check has no CMD")
	}
	err := i.inside(words(i.T, command), env...).Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		i.Fatal(err)
	}
	return err == nil
}

// files lists what is in the image, outside its volume.
func (i *image) files() (names []string) {
	i.Helper()
	err := fs.WalkDir(os.DirFS(i.root), ".", func(path string, d fs.DirEntry, err error) error {
		if path == "data" {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		i.Fatal(err)
	}
	return names
}

// The binary needs no loader and no libraries, and there is nothing beside it but the
// certificates.
func TestImageHoldsWhatItNeeds(t *testing.T) {
	i := build(t, "1.2.3-test")
	if files := i.files(); !slices.Equal(files, []string{"etc/ssl/certs/ca-certificates.crt", "tailrace"}) {
		t.Errorf("the image has %v", files)
	}
	f, err := elf.Open(filepath.Join(i.root, "tailrace"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if loader := interpreter(f); loader {
		t.Error("the binary needs a loader")
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the binary needs %v, %v", libraries, err)
	}
	if shell, err := elf.Open("/bin/sh"); err != nil || !interpreter(shell) {
		t.Errorf("the check does not see that /bin/sh needs a loader: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(i.root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil {
		t.Fatal(err)
	}
	certificates := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Error(err)
		}
		certificates++
	}
	if certificates < 50 {
		t.Errorf("%d certificates", certificates)
	}
	out, err := i.inside(i.entry("version")).Output()
	if err != nil || !strings.HasPrefix(string(out), "tailrace 1.2.3-test (abcdef), go") {
		t.Errorf("version: %s, %v", out, err)
	}
}

// interpreter says whether a program needs one.
func interpreter(f *elf.File) bool {
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

const runConfiguration = `broker: { embedded: { dir: broker, listen: "127.0.0.1:%d" } }
registry: { serve: "127.0.0.1:%d" }
http: { listen: "127.0.0.1:%d" }
captures:
  - name: %s
    postgres: { url: "${env:SHOP_URL}", slot: %s }
`

// `run` works in the image: nothing else is there, and nothing is written but to the volume.
func TestImageRuns(t *testing.T) {
	pg := testenv.SharedPostgres(t)
	db, slot := pg.CreateDatabase(t), strings.ReplaceAll(testenv.Unique("image"), "-", "_")
	if err := pg.Exec(t.Context(), db, "CREATE TABLE orders (id int PRIMARY KEY)", "INSERT INTO orders SELECT generate_series(1, 10)"); err != nil {
		t.Fatal(err)
	}
	i := build(t, "test")
	config := filepath.Join(i.root, "etc/tailrace/tailrace.yaml") // as a mount would bring it
	if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(runConfiguration, freePort(t), freePort(t), freePort(t), slot, slot)
	if err := os.WriteFile(config, []byte(text), 0o444); err != nil {
		t.Fatal(err)
	}
	before, env := i.files(), "SHOP_URL="+pg.AdminURL(db)
	if i.healthy(env) {
		t.Error("it is healthy before it runs")
	}
	cmd := i.inside(i.entry(), env)
	var log bytes.Buffer
	cmd.Stderr = &log
	p, err := testenv.StartProcess(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	i.owner(p.Pid())
	await(t, p, "healthy", func() bool { return i.healthy(env) })
	await(t, p, "ready", func() bool { return i.inside(i.entry("capture", "status", "--check"), env).Run() == nil })
	topic := slot + ".public.orders"
	await(t, p, "through with ten rows", func() bool {
		out, err := i.inside(i.entry("topic", "tail", topic, "--to-end", "-o", "json"), env).Output()
		return err == nil && bytes.Count(out, []byte("\n")) == 10
	})
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if code := p.State().ExitCode(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	if after := i.files(); !slices.Equal(before, after) {
		t.Errorf("there were %v, now %v", before, after)
	}
	if _, err := os.Stat(filepath.Join(i.root, "data/broker")); err != nil {
		t.Error(err)
	}
	if err := pg.Exec(t.Context(), db, "SELECT pg_drop_replication_slot('"+slot+"')"); err != nil {
		t.Error(err)
	}
}

// owner sees that the process is not root.
func (i *image) owner(pid int) {
	i.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		i.Fatal(err)
	}
	want := i.uid
	if os.Geteuid() != 0 {
		want = os.Geteuid()
	}
	for line := range strings.Lines(string(text)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			for _, id := range strings.Fields(ids) {
				if id != strconv.Itoa(want) || id == "0" {
					i.Errorf("it runs as %s", ids)
				}
			}
			return
		}
	}
	i.Error("nobody says whose it is")
}

func await(t *testing.T, p *testenv.Process, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-p.Done():
			t.Fatalf("it ended before it was %s", what)
		case <-deadline:
			t.Fatalf("it is not %s", what)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := testenv.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
