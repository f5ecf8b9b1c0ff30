package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// readme returns the README and the module's root.
func readme(t *testing.T) (text, root string) {
	t.Helper()
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), root
}

// functions returns the functions of a package, methods as Type.Method.
func functions(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			full := fn.Name.Name
			if fn.Recv != nil {
				recv := fn.Recv.List[0].Type
				if p, ok := recv.(*ast.StarExpr); ok {
					recv = p.X
				}
				if id, ok := recv.(*ast.Ident); ok {
					full = id.Name + "." + full
				}
			}
			out[full] = true
		}
	}
	return out
}

// Every function that the README's way of a row and its recovery name is there.
func TestReadmeNamesFunctions(t *testing.T) {
	text, root := readme(t)
	row := regexp.MustCompile("(?m)^\\| \\d+ \\| `([a-z/]+)` \\| (.*?) \\|")
	quoted := regexp.MustCompile("`([A-Za-z.]+)`")
	steps := row.FindAllStringSubmatch(text, -1)
	if len(steps) != 10 {
		t.Fatalf("%d steps", len(steps))
	}
	check := func(pkg, names string) {
		known := functions(t, filepath.Join(root, pkg))
		for _, m := range quoted.FindAllStringSubmatch(names, -1) {
			if !known[m[1]] {
				t.Errorf("%s has no function %s", pkg, m[1])
			}
		}
	}
	for _, s := range steps {
		check(s[1], s[2])
	}
	check("capture/postgres", "`stream.control`")
	check("capture", "`pipeline.Table` `Run` `loadState` `checkLog` `own` `readTails` `choose` `progress.admit`")
}

// Each configuration in the README is valid.
func TestReadmeConfigurations(t *testing.T) {
	text, _ := readme(t)
	for _, v := range []string{"SHOP_URL", "WAREHOUSE_URL", "REGISTRY_PASSWORD", "BILLING_TOKEN", "BILLING_SECRET"} {
		t.Setenv(v, "postgres://u@h/db")
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```|<<'END'\n(.*?)END\n").FindAllStringSubmatch(text, -1)
	if len(blocks) != 3 {
		t.Fatalf("%d configurations", len(blocks))
	}
	t.Setenv("HMAC_KEY", "0123456789abcdef")
	for _, b := range blocks {
		file := filepath.Join(t.TempDir(), "tailrace.yaml")
		secrets := t.TempDir()
		for _, s := range regexp.MustCompile(`/run/secrets/([a-z-]+)`).FindAllStringSubmatch(b[1], -1) {
			if err := os.WriteFile(filepath.Join(secrets, s[1]), []byte("0123456789abcdef"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		content := strings.ReplaceAll(b[1]+b[2], "/run/secrets", secrets)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, stdout, stderr := execute("config", "validate", "-f", file); code != 0 {
			t.Errorf("%s%s", stdout, stderr)
		}
	}
}

// Each flag and command that the README names is there.
func TestReadmeNamesFlags(t *testing.T) {
	text, _ := readme(t)
	c := &cli{env: os.LookupEnv}
	root := c.root()
	known := map[string]bool{}
	eachCommand(root, func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
	})
	found := regexp.MustCompile("`--([a-z-]+)").FindAllStringSubmatch(text, -1)
	if len(found) < 10 {
		t.Fatalf("%d flags", len(found))
	}
	for _, m := range found {
		if !known[m[1]] {
			t.Errorf("no flag --%s", m[1])
		}
	}
}

// eachCommand calls fn with a command and all below it.
func eachCommand(cmd *cobra.Command, fn func(*cobra.Command)) {
	fn(cmd)
	for _, sub := range cmd.Commands() {
		eachCommand(sub, fn)
	}
}
