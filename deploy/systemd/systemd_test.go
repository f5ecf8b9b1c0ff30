package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/deploy/internal/product"
)

// panics makes the test's own binary end as a program with a bug does.
const panics = "TAILRACE_TEST_PANICS"

func TestMain(m *testing.M) {
	if os.Getenv(panics) != "" {
		panic("as asked for")
	}
	os.Exit(m.Run())
}

// exposure is the most that systemd may say of the unit, in tenths.
const exposure = 20

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// all returns the values of a directive, in order.
func all(unit, directive string) (values []string) {
	for _, m := range regexp.MustCompile(`(?m)^`+directive+`=(.*)$`).FindAllStringSubmatch(unit, -1) {
		values = append(values, m[1])
	}
	return values
}

// one returns the value of a directive that is there once.
func one(t *testing.T, unit, directive string) string {
	t.Helper()
	values := all(unit, directive)
	if len(values) != 1 {
		t.Fatalf("%s is there %d times", directive, len(values))
	}
	return values[0]
}

// analyze asks systemd about a unit's text, whose program is one that is here.
func analyze(t *testing.T, unit, command string, flags ...string) (said string, ok bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tailrace.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(unit, "/usr/bin/tailrace", self)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", append(append([]string{command}, flags...), file)...).CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatalf("ask systemd: %v: run make deps", err)
	}
	return string(out), err == nil
}

// systemd knows every directive and value of the unit, and sees one that it does not know.
func TestUnitIsValid(t *testing.T) {
	unit := read(t, "tailrace.service")
	if said, ok := analyze(t, unit, "verify", "--man=no"); !ok || said != "" {
		t.Errorf("systemd says: %s", said)
	}
	for _, broken := range []string{strings.Replace(unit, "NoNewPrivileges", "NoNewPriviliges", 1), strings.Replace(unit, "WatchdogSec=60s", "WatchdogSec=soon", 1)} {
		if said, _ := analyze(t, broken, "verify", "--man=no"); said == "" {
			t.Error("systemd does not see a mistake")
		}
	}
}

// Little of the machine is open to the service; without its hardening nearly all would be.
func TestUnitIsHardened(t *testing.T) {
	unit, flags := read(t, "tailrace.service"), []string{"--offline=true", "--no-pager", fmt.Sprintf("--threshold=%d", exposure)}
	if said, ok := analyze(t, unit, "security", flags...); !ok {
		t.Errorf("systemd says: %s", said)
	}
	from, to := strings.Index(unit, "# A user that exists"), strings.Index(unit, "[Install]")
	if said, ok := analyze(t, unit[:from]+unit[to:], "security", flags...); ok {
		t.Errorf("without its hardening systemd says: %s", said)
	}
}

// What the unit starts is there, and the configuration beside it finds its secrets where the
// unit puts them.
func TestUnitFitsTheProduct(t *testing.T) {
	unit, configuration := read(t, "tailrace.service"), read(t, "tailrace.yaml")
	bin, err := product.Build(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	command := strings.Fields(one(t, unit, "ExecStart"))
	if out, err := exec.CommandContext(t.Context(), bin, append(command[1:], "--help")...).CombinedOutput(); err != nil || command[0] != "/usr/bin/tailrace" {
		t.Errorf("%v: %v: %s", command, err, out)
	}
	given := map[string]string{}
	for _, credential := range all(unit, "LoadCredential") {
		name, source, _ := strings.Cut(credential, ":")
		given[name] = source
	}
	const place = "/run/credentials/tailrace.service/"
	asked := regexp.MustCompile(`\$\{file:`+place+`([\w-]+)\}`).FindAllStringSubmatch(configuration, -1)
	if len(asked) == 0 || len(asked) != len(given) {
		t.Errorf("the configuration asks for %d credentials, the unit gives %v", len(asked), given)
	}
	dir := t.TempDir()
	for _, a := range asked {
		if !strings.HasPrefix(given[a[1]], "/etc/tailrace/credentials/") {
			t.Errorf("the unit gives no credential %s", a[1])
		}
		if err := os.WriteFile(filepath.Join(dir, a[1]), []byte("postgres://u:p@127.0.0.1/shop\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "tailrace.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(configuration, place, dir+"/")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), bin, "config", "validate", "-f", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Starting again is left out for the exit codes that it would not mend; 2 is such a one only
// because a crash of the program does not end with it.
func TestUnitRestarts(t *testing.T) {
	unit := read(t, "tailrace.service")
	if codes := strings.Fields(one(t, unit, "RestartPreventExitStatus")); !slices.Equal(codes, []string{"1", "2"}) || one(t, unit, "Restart") != "on-failure" {
		t.Errorf("it is not started again after %v", codes)
	}
	for _, c := range []struct {
		env      string
		signaled bool
	}{{one(t, unit, "Environment"), true}, {"GOTRACEBACK=all", false}} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `ulimit -c 0; exec "$0"`, self)
		cmd.Dir, cmd.Env = t.TempDir(), []string{panics + "=1", c.env}
		if err := cmd.Run(); err == nil {
			t.Fatal("it does not crash")
		}
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() != c.signaled || !c.signaled && status.ExitStatus() != 2 {
			t.Errorf("with %s a crash ends with %v", c.env, cmd.ProcessState)
		}
	}
}
