package samples

import (
	"bufio"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tested are the samples and the tests that run them.
var tested = map[string]func(*testing.T){
	"legacy-to-app":      TestLegacyToApp,
	"erp-to-crm":         TestERPToCRM,
	"pos-to-inventory":   TestPOSToInventory,
	"workflow-webhook":   TestWorkflowWebhook,
	"shared-data-masked": TestSharedDataMasked,
}

// folders are the samples that are there.
func folders(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// reference is a variable in a configuration.
var reference = regexp.MustCompile(`\$\{env:([A-Z_]+)\}`)

// variables are those that a sample's configuration needs.
func variables(t *testing.T, name string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(name, "tailrace.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range reference.FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sampleEnv is what a sample proposes as its environment.
func sampleEnv(t *testing.T, name string) (env []string) {
	t.Helper()
	f, err := os.Open(filepath.Join(name, "sample.env"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if line := lines.Text(); line != "" && !strings.HasPrefix(line, "#") {
			env = append(env, line)
		}
	}
	return env
}

// No sample is without a test, and each is complete.
func TestEverySampleIsTested(t *testing.T) {
	names := folders(t)
	if want := slices.Sorted(maps.Keys(tested)); !slices.Equal(names, want) {
		t.Errorf("there are the samples %v, and tests of %v", names, want)
	}
	for _, name := range names {
		for _, file := range []string{"README.md", "sample.env", "source.sql", "tailrace.yaml"} {
			if _, err := os.Stat(filepath.Join(name, file)); err != nil {
				t.Error(err)
			}
		}
	}
	index, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.Contains(string(index), "("+name+"/)") {
			t.Errorf("README.md does not name %s", name)
		}
	}
}

// `tailrace config validate` takes each configuration as it is, with the environment that
// the sample proposes, which holds what is needed and no more.
func TestSamplesAreValid(t *testing.T) {
	for _, name := range folders(t) {
		env := sampleEnv(t, name)
		validate := func(env []string) (string, error) {
			cmd := exec.CommandContext(t.Context(), binary, "config", "validate")
			cmd.Dir, cmd.Env = name, env
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		if out, err := validate(env); err != nil || !strings.Contains(out, "is valid") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		var have []string
		for _, line := range env {
			variable, _, _ := strings.Cut(line, "=")
			have = append(have, variable)
		}
		for _, variable := range variables(t, name) {
			if !slices.Contains(have, variable) {
				t.Errorf("%s: sample.env has no %s", name, variable)
			}
		}
		if out, err := validate(env[1:]); err == nil {
			t.Errorf("%s: without %s: %s", name, env[0], out)
		}
	}
}

// Each command of tailrace that a README calls is there, with its flags.
func TestReadmesCallWhatThereIs(t *testing.T) {
	call := regexp.MustCompile("(?m)(?:^|`)tailrace ([a-z][^`\n#&]*)")
	for _, name := range folders(t) {
		text, err := os.ReadFile(filepath.Join(name, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		calls := call.FindAllStringSubmatch(string(text), -1)
		if len(calls) < 2 {
			t.Errorf("%s: its README calls %d commands", name, len(calls))
		}
		for _, m := range calls {
			if out, err := exec.CommandContext(t.Context(), binary, append(strings.Fields(m[1]), "--help")...).CombinedOutput(); err != nil {
				t.Errorf("%s: tailrace %s: %s", name, m[1], out)
			}
		}
	}
}
