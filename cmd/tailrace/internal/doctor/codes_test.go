package doctor

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write DOCTOR.md anew; read the difference")

// constants are the values of a package's constants that begin with Code.
func constants(t *testing.T, dir string) (values []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v", dir, err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Code") {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				value, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, value)
			}
			return true
		})
	}
	return values
}

// Each code of the packages that check is in the list, once, and well formed.
func TestCodes(t *testing.T) {
	listed := map[string]bool{}
	for _, c := range Codes {
		if listed[c.Code] || !regexp.MustCompile(`^[A-Z]+(_[A-Z]+)*$`).MatchString(c.Code) || c.Meaning == "" {
			t.Errorf("%+v is listed twice, or not well formed", c)
		}
		listed[c.Code] = true
	}
	n := 0
	for _, dir := range []string{".", "../../../../capture/postgres", "../../../../sinks/postgres"} {
		for _, code := range constants(t, dir) {
			if n++; !listed[code] {
				t.Errorf("%s of %s is not in the list", code, dir)
			}
		}
	}
	if n != len(Codes) {
		t.Errorf("%d constants, %d codes in the list", n, len(Codes))
	}
}

// DOCTOR.md is the list.
func TestDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# What `tailrace doctor` finds\n\n`tailrace doctor --codes` prints the same. A code is never given another meaning. " +
		"*worst* is the severity that it can have at most;\na finding of the same code with severity `ok` says that it was tried and works.\n\n| code | worst | says |\n|---|---|---|\n")
	for _, c := range Codes {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c.Code, c.Worst, c.Meaning)
	}
	const file = "../../DOCTOR.md"
	if *rewrite {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != b.String() {
		t.Errorf("DOCTOR.md is not the list of codes (%v): go test -run TestDocument -rewrite", err)
	}
}
