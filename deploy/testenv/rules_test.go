package testenv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tailrace/tailrace"

// listed is what the rules need of a package, as go list tells it.
type listed struct {
	ImportPath   string
	Imports      []string // of the code, not of tests
	TestImports  []string
	XTestImports []string
}

// rule says what the packages under a folder may import of ours and, of the rest of the
// world, beyond the standard library. Subfolders come before their parents.
type rule struct {
	folder  string   // relative to the module's root, matches itself and what is below
	ours    []string // folders, matching like folder; a package may always import its own folder
	outside []string // module paths, matching what is below too
}

// The floors: cmd → capture, sinks → stream → schemas. No arrow runs up, siblings never
// meet, nobody imports cmd or deploy.
var rules = []rule{
	{"schemas/registry/registrytest", []string{"schemas/registry", "schemas"}, nil},
	{"schemas/registry", []string{"schemas"}, nil},
	{"schemas", nil, []string{"github.com/linkedin/goavro/v2"}},
	{"stream/embedded", []string{"stream"}, []string{"github.com/twmb/franz-go"}},
	{"stream/subscribe", []string{"stream", "schemas", "schemas/registry"}, nil},
	{"stream", nil, []string{"github.com/segmentio/kafka-go", "github.com/klauspost/compress", "github.com/pierrec/lz4/v4", "golang.org/x/sys"}},
	{"capture/postgres", []string{"capture", "schemas"}, []string{"github.com/jackc/pglogrepl", "github.com/jackc/pgx/v5"}},
	{"capture/mysql", []string{"capture", "schemas"}, []string{"github.com/go-mysql-org/go-mysql"}},
	{"capture", []string{"stream", "schemas", "schemas/registry"}, nil},
	{"sinks/sinktest", []string{"sinks", "stream/subscribe", "stream", "schemas"}, nil},
	{"sinks/postgres", []string{"sinks", "schemas"}, []string{"github.com/jackc/pgx/v5"}},
	{"sinks/webhook", []string{"sinks", "schemas"}, nil},
	{"sinks", []string{"stream/subscribe", "stream", "schemas"}, nil},
	{"cmd", []string{"capture", "sinks", "stream", "schemas"}, []string{"*"}},
	{"deploy", []string{"deploy", "capture", "sinks", "stream", "schemas"}, []string{"*"}},
}

// everywhere may be imported by any package: metrics through an injected registerer.
var everywhere = []string{"github.com/prometheus/client_golang", "github.com/prometheus/client_model"}

// under says whether p is folder or below it.
func under(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// ruleFor is the rule of the package at rel, relative to the module's root.
func ruleFor(rel string) (rule, bool) {
	i := slices.IndexFunc(rules, func(r rule) bool { return under(rel, r.folder) })
	if i < 0 {
		return rule{}, false
	}
	return rules[i], true
}

// violations lists every import that a rule does not allow, sorted.
func violations(packages []listed) []string {
	var out []string
	for _, p := range packages {
		rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		r, ok := ruleFor(rel)
		if !ok {
			out = append(out, fmt.Sprintf("%s: no rule for this folder", rel))
			continue
		}
		for _, imported := range p.Imports {
			if !r.allows(imported) {
				out = append(out, fmt.Sprintf("%s must not import %s", rel, imported))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (r rule) allows(imported string) bool {
	if rel, ours := strings.CutPrefix(imported, module+"/"); ours {
		if under(rel, "cmd") && r.folder != "cmd" {
			return false
		}
		owner, ok := ruleFor(rel)
		if !ok {
			return false
		}
		if owner.folder == r.folder {
			return true
		}
		if r.folder == "cmd" || r.folder == "deploy" {
			return slices.ContainsFunc(r.ours, func(f string) bool { return under(rel, f) })
		}
		return slices.Contains(r.ours, owner.folder)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(append(slices.Clone(everywhere), r.outside...), func(m string) bool {
		return m == "*" || under(imported, m)
	})
}

// productUsesFranzGo lists the product's packages that reach a franz-go package other than
// by the embedded broker: the reader of the proofs must not be the product's own.
func productUsesFranzGo(packages []listed) []string {
	var out []string
	for _, p := range packages {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		if under(rel, "deploy") || under(rel, "stream/embedded") {
			continue
		}
		for _, i := range p.Imports {
			if under(i, "github.com/twmb/franz-go") {
				out = append(out, rel+" imports "+i)
			}
		}
	}
	return out
}

// goList is every package of the module, with the imports of both builds.
func goList(t *testing.T) []listed {
	t.Helper()
	all := map[string]listed{}
	for _, tags := range []string{"", "failpoint"} {
		root, err := Root()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "go", "list", "-tags", tags, "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
		cmd.Dir = root
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, said.String())
		}
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var p listed
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			p.Imports = append(p.Imports, all[p.ImportPath].Imports...)
			all[p.ImportPath] = p
		}
	}
	return slices.Collect(maps.Values(all))
}

func TestDependencyRules(t *testing.T) {
	packages := goList(t)
	if !slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == module+"/capture" }) {
		t.Fatal("go list does not show the package capture: the check sees nothing")
	}
	for _, v := range violations(packages) {
		t.Error(v)
	}
	for _, v := range productUsesFranzGo(packages) {
		t.Error(v)
	}
}

// Tests may use more than the code: real servers, and goavro and franz-go as oracles. But
// they must not reach across to a sibling either, nor up into cmd; but for sinks/sinktest,
// the conformance suite, which is there for the tests of every sink, and capture/backfill,
// which is part of capture.
func TestDependencyRulesOfTests(t *testing.T) {
	for _, p := range goList(t) {
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, i := range append(p.TestImports, p.XTestImports...) {
			i, ours := strings.CutPrefix(i, module+"/")
			if !ours {
				continue
			}
			if under(i, "cmd") && !under(rel, "cmd") {
				t.Errorf("the tests of %s must not import %s", rel, i)
			}
			if a, b := path.Dir(rel), path.Dir(i); a == b && (a == "capture" || a == "sinks") && rel != i && i != "sinks/sinktest" && i != "capture/backfill" {
				t.Errorf("the tests of %s must not import its sibling %s", rel, i)
			}
		}
	}
}

// The check itself: each fabricated import must be judged as told.
func TestDependencyRulesCatch(t *testing.T) {
	for _, c := range []struct {
		from, imports string
		allowed       bool
	}{
		{"schemas", "encoding/json", true},
		{"schemas", "github.com/linkedin/goavro/v2", true},
		{"schemas", module + "/stream", false},
		{"schemas", module + "/schemas/registry", false},
		{"schemas/registry", module + "/schemas", true},
		{"schemas/registry", module + "/stream", false},
		{"schemas/registry", module + "/schemas/registry/internal/x", true},
		{"stream", module + "/schemas", false},
		{"stream", module + "/stream/embedded", false},
		{"stream", "github.com/segmentio/kafka-go/protocol/fetch", true},
		{"stream", "github.com/twmb/franz-go/pkg/kgo", false},
		{"stream", "github.com/segmentio/kafka-gone", false},
		{"stream/embedded", "github.com/twmb/franz-go/pkg/kfake", true},
		{"stream/embedded", module + "/schemas", false},
		{"stream/subscribe", module + "/schemas/registry", true},
		{"capture", module + "/stream", true},
		{"capture", module + "/schemas/registry", true},
		{"capture", module + "/capture/postgres", false},
		{"capture", module + "/sinks", false},
		{"capture", module + "/stream/embedded", false},
		{"capture", "github.com/jackc/pglogrepl", false},
		{"capture", "github.com/prometheus/client_golang/prometheus", true},
		{"capture/backfill", module + "/capture", true},
		{"capture/postgres", module + "/capture", true},
		{"capture/postgres", module + "/stream", false},
		{"capture/postgres", module + "/capture/mysql", false},
		{"capture/postgres", "github.com/jackc/pgx/v5/pgconn", true},
		{"sinks", module + "/capture", false},
		{"sinks", module + "/stream/subscribe", true},
		{"sinks/postgres", module + "/sinks/webhook", false},
		{"sinks/postgres", module + "/cmd/tailrace", false},
		{"cmd/tailrace", module + "/capture/postgres", true},
		{"cmd/tailrace", module + "/cmd/tailrace/internal/app", true},
		{"cmd/tailrace", module + "/deploy/testenv", false},
		{"cmd/tailrace", "github.com/spf13/cobra", true},
		{"deploy/bench/kill", module + "/deploy/testenv", true},
		{"deploy/bench/kill", module + "/cmd/tailrace", false},
		{"capture", module + "/deploy/testenv", false},
		{"util", "fmt", false},
	} {
		got := violations([]listed{{ImportPath: module + "/" + c.from, Imports: []string{c.imports}}})
		if (len(got) == 0) != c.allowed {
			t.Errorf("%s importing %s: allowed should be %v, found %q", c.from, c.imports, c.allowed, got)
		}
	}
	franz := []listed{{ImportPath: module + "/cmd/tailrace", Imports: []string{"github.com/twmb/franz-go/pkg/kgo"}}}
	if len(productUsesFranzGo(franz)) != 1 {
		t.Error("franz-go in a command is not found")
	}
}
