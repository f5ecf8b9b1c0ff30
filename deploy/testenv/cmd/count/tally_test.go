package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// module writes a module of one package with the given test file.
func module(t *testing.T, test string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module m\n\ngo 1.26\n", "m_test.go": "package m\n\n" + test} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// counted runs go test in a module and returns what a tally says of it.
func counted(t *testing.T, test string) (string, *tally) {
	t.Helper()
	cmd := exec.Command("go", "test", "-json", "./...")
	cmd.Dir = module(t, test)
	events, _ := cmd.Output() // its exit code is the failing test's
	var out bytes.Buffer
	tally := newTally(&out)
	if err := tally.read(bytes.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	tally.close()
	return out.String(), tally
}

func TestCount(t *testing.T) {
	for _, c := range []struct{ name, test, closing, shows string }{
		{"all kinds", `import "testing"
func TestA(t *testing.T) { t.Log("hidden") }
func TestB(t *testing.T) { t.Run("embedded", func(t *testing.T) {}); t.Run("kafka", func(t *testing.T) { t.Run("x", func(t *testing.T) { t.Error("shown") }) }) }
func TestC(t *testing.T) { t.SkipNow() }
`, "2 passed, 1 failed, 1 skipped", "shown"},
		{"skipped", `import "testing"
func TestA(t *testing.T) { t.Skip("for a reason") }
`, "0 passed, 0 failed, 1 skipped", "skip m TestA\n=== RUN   TestA\n    m_test.go:4: for a reason"},
		{"parent fails by itself", `import "testing"
func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Error("by itself") }
`, "1 passed, 1 failed, 0 skipped", "by itself"},
		{"does not build", "var x int = \"no\"\n", "0 passed, 1 failed, 0 skipped", "cannot use"},
		{"process dies", `import ("os"; "testing")
func TestA(t *testing.T) {}
func TestB(t *testing.T) { println("last words"); os.Exit(3) }
`, "1 passed, 1 failed, 0 skipped", "last words"},
		{"panics", `import "testing"
func TestA(t *testing.T) { panic("aaargh") }
`, "0 passed, 1 failed, 0 skipped", "aaargh"},
		{"nothing", "", "0 passed, 0 failed, 0 skipped", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _ := counted(t, c.test)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if lines[len(lines)-1] != c.closing {
				t.Errorf("closes with %q, not %q", lines[len(lines)-1], c.closing)
			}
			if !strings.Contains(out, c.shows) || strings.Contains(out, "hidden") {
				t.Errorf("output does not show %q, or shows passing tests' logs:\n%s", c.shows, out)
			}
		})
	}
}

// Output that go test tells after a test's end does not make it unfinished.
func TestNestedParallelTestsAreFinished(t *testing.T) {
	out, _ := counted(t, `import "testing"
func TestA(t *testing.T) { t.Parallel(); t.Run("a", func(t *testing.T) { t.Parallel(); t.Run("b", func(t *testing.T) { t.Parallel(); t.Log("x") }) }) }
func TestB(t *testing.T) { t.Parallel(); t.Error("fails") }
`)
	if strings.Contains(out, "unfinished") || !strings.Contains(out, "\n1 passed, 1 failed, 0 skipped\n") {
		t.Errorf("output:\n%s", out)
	}
}

func TestCountsByBroker(t *testing.T) {
	out, tally := counted(t, `import "testing"
func TestB(t *testing.T) { t.Run("embedded", func(t *testing.T) {}); t.Run("kafka", func(t *testing.T) { t.Fail() }) }
`)
	if *tally.brokers["embedded"] != [2]int{1, 0} || *tally.brokers["kafka"] != [2]int{0, 1} {
		t.Errorf("counts by broker are wrong:\n%s", out)
	}
}

// A run that was cut off must not look green.
func TestCutOffRunFails(t *testing.T) {
	var out bytes.Buffer
	tally := newTally(&out)
	cut := `{"Action":"start","Package":"m"}
{"Action":"run","Package":"m","Test":"TestA"}
{"Action":"pass","Package":"m","Test":"TestA"}
`
	if err := tally.read(strings.NewReader(cut)); err != nil {
		t.Fatal(err)
	}
	tally.close()
	if tally.failed != 1 || tally.passed != 1 {
		t.Errorf("a run without an end counts as %d passed, %d failed", tally.passed, tally.failed)
	}
}
