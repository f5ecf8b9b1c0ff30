package prometheus

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/tailrace/tailrace/deploy/testenv"
)

// ruleFile is what the test reads of tailrace.rules.yml.
type ruleFile struct {
	Groups []struct {
		Rules []struct {
			Alert       string
			Expr        string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
}

// testFile is what the test reads of tailrace.test.yml.
type testFile struct {
	Tests []struct {
		Name   string
		Alerts []struct {
			Name string `yaml:"alertname"`
			Want []any  `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	}
}

func read(t *testing.T, file string, into any) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if into == nil {
		return text
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return text
}

// promtool runs it in a directory and returns what it says.
func promtool(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	if _, err := os.Stat(testenv.Promtool()); err != nil {
		t.Fatalf("%v: run make deps", err)
	}
	cmd := exec.CommandContext(t.Context(), testenv.Promtool(), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The rules are valid, and each alert fires where it should, and nowhere else.
func TestRules(t *testing.T) {
	if out, err := promtool(t, ".", "check", "rules", "tailrace.rules.yml"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := promtool(t, ".", "test", "rules", "tailrace.test.yml"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Each alert has a test in which it fires and one in which it does not, says how bad it is
// and which command leads on.
func TestEveryAlertIsTested(t *testing.T) {
	var rules ruleFile
	var tests testFile
	read(t, "tailrace.rules.yml", &rules)
	read(t, "tailrace.test.yml", &tests)
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, one := range tests.Tests {
		for _, a := range one.Alerts {
			if len(a.Want) > 0 {
				fires[a.Name] = true
			} else {
				silent[a.Name] = true
			}
		}
	}
	known := metrics(t)
	for _, r := range rules.Groups[0].Rules {
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: has a test in which it fires: %v, in which it does not: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		}
		if !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) || r.Annotations["summary"] == "" {
			t.Errorf("%s: labels %v, annotations %v", r.Alert, r.Labels, r.Annotations)
		}
		if d := r.Annotations["description"]; !strings.Contains(d, "`tailrace ") && !strings.Contains(d, "goes on by itself") {
			t.Errorf("%s names no command: %s", r.Alert, d)
		}
		checkMetrics(t, r.Alert, r.Expr, known)
	}
	if len(rules.Groups[0].Rules) < 15 {
		t.Error("rules are missing")
	}
}

// Rules that are wrong are found out.
func TestWrongRulesAreFound(t *testing.T) {
	text := string(read(t, "tailrace.rules.yml", nil))
	for name, change := range map[string][2]string{
		"a bound that is never reached":  {"tailrace_capture_lag_seconds > 300", "tailrace_capture_lag_seconds > 300000"},
		"the wrong way round":            {"headroom_ratio < 0.25", "headroom_ratio > 0.25"},
		"a metric that does not exist":   {"tailrace_dlq_parked_records > 0", "tailrace_dlq_parked > 0"},
		"a status that does not exist":   {`tailrace_sink_health{status="stopped"}`, `tailrace_sink_health{status="dead"}`},
		"it fires too early, and always": {"== 0'\n        for: 15m", ">= 0'\n        for: 15m"},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := strings.Replace(text, change[0], change[1], 1)
			if wrong == text {
				t.Fatalf("there is no %q to be changed", change[0])
			}
			dir := t.TempDir()
			for file, content := range map[string]string{"tailrace.rules.yml": wrong, "tailrace.test.yml": string(read(t, "tailrace.test.yml", nil))} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := promtool(t, dir, "test", "rules", "tailrace.test.yml"); err == nil {
				t.Errorf("the tests pass:\n%s", out)
			}
		})
	}
}

var metricName = regexp.MustCompile(`\btailrace_[a-z0-9_]+`)

// metrics are those that README promises; a test of cmd/tailrace holds it to that.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for line := range strings.Lines(string(read(t, filepath.Join(root, "README.md"), nil))) {
		if strings.HasPrefix(line, "| `tailrace_") {
			known[metricName.FindString(line)] = true
		}
	}
	if len(known) < 20 {
		t.Fatalf("README has %d metrics", len(known))
	}
	return known
}

// checkMetrics makes sure that an expression asks for nothing that does not exist.
func checkMetrics(t *testing.T, where, expr string, known map[string]bool) {
	t.Helper()
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 {
		t.Errorf("%s asks for no metric of ours: %s", where, expr)
	}
	for _, name := range names {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && known[base] {
				name = base
			}
		}
		if !known[name] {
			t.Errorf("%s asks for %s, which does not exist", where, name)
		}
	}
}

// dashboard is what the test reads of the Grafana dashboard.
type dashboard struct {
	Title      string
	UID        string
	Templating struct {
		List []struct{ Name, Type, Query string }
	}
	Panels []struct {
		ID          int
		Type        string
		Title       string
		Description string
		GridPos     struct{ X, Y, W, H int }
		FieldConfig struct {
			Defaults struct{ Unit string }
		}
		Targets []struct {
			Expr         string
			LegendFormat string
		}
	}
}

// The dashboard has what it needs to be understood, and asks only for what there is.
func TestDashboard(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal(read(t, "../grafana/tailrace.json", nil), &d); err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if d.Title == "" || d.UID == "" || fmt.Sprint(variables) != "[datasource capture sink]" {
		t.Errorf("title %q, uid %q, variables %v", d.Title, d.UID, variables)
	}
	known, ids := metrics(t), make(map[int]bool)
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	shown := make(map[string]bool)
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q has the id %d of another", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || p.GridPos.W == 0 {
			t.Errorf("panel %d %q: description %q, unit %q, %d queries", p.ID, p.Title, p.Description, p.FieldConfig.Defaults.Unit, len(p.Targets))
		}
		for _, q := range p.Targets {
			checkMetrics(t, p.Title, q.Expr, known)
			for _, name := range metricName.FindAllString(q.Expr, -1) {
				shown[name] = true
			}
			expr := strings.NewReplacer("$__rate_interval", "5m", "$capture", ".*", "$sink", ".*").Replace(q.Expr)
			fmt.Fprintf(&rules, "  - record: panel%d\n    expr: %q\n", p.ID, expr)
		}
	}
	for _, must := range []string{"tailrace_pipeline_health", "tailrace_capture_lag_seconds", "tailrace_source_retained_bytes", "tailrace_source_retention_headroom_ratio",
		"tailrace_backfill_rows", "tailrace_sink_lag_seconds", "tailrace_sink_apply_seconds_bucket", "tailrace_e2e_latency_seconds_bucket", "tailrace_dlq_parked_records"} {
		if !shown[must] {
			t.Errorf("no panel shows %s", must)
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, ".", "check", "rules", "--lint=none", file); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
