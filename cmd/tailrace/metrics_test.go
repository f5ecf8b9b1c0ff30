package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tailrace/tailrace/deploy/testenv"
)

var (
	inReadme  = regexp.MustCompile("(?m)^\\| `(tailrace_[a-z0-9_]+)` \\| ?([^|]*?) ?\\|")
	onMetrics = regexp.MustCompile(`(?m)^# TYPE (tailrace_[a-z0-9_]+) `)
)

// Every metric that README names is exposed, with the labels that it names, and no other is.
func TestMetricsAreThoseOfReadme(t *testing.T) {
	t.Parallel()
	pg := testenv.NewPostgres(t, testenv.PGOptions{Settings: map[string]string{"max_slot_wal_keep_size": "1GB"}})
	source, target := pg.CreateDatabase(t), pg.CreateDatabase(t)
	sql(t, pg, source, "CREATE TABLE orders (id bigint PRIMARY KEY, note text)", "INSERT INTO orders SELECT i, 'x' FROM generate_series(1, 20000) i")
	name := testenv.Unique("metrics")
	p := settings{name: name, broker: embeddedBroker(t), registry: ownRegistry(t), url: pg.AdminURL(source),
		more: "    backfill: { rate: 100 }\n" + sinkTo(t, name, pg.AdminURL(target))}.configure(t).start(t)
	var body string
	p.until("reading a table, and asked its database what it keeps", func() bool {
		_, body = p.get("/metrics")
		return strings.Contains(body, "tailrace_source_retention_headroom_ratio{") && strings.Contains(body, `state="running",table="public.orders"} 1`) &&
			!strings.Contains(body, fmt.Sprintf("tailrace_sink_events_total{op=\"read\",sink=%q} 0", name))
	})
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	promised := make(map[string][]string)
	for _, m := range inReadme.FindAllStringSubmatch(string(readme), -1) {
		promised[m[1]] = regexp.MustCompile("[a-z]+").FindAllString(m[2], -1)
	}
	exposed := make(map[string]bool)
	for _, m := range onMetrics.FindAllStringSubmatch(body, -1) {
		exposed[m[1]] = true
		if _, ok := promised[m[1]]; !ok {
			t.Errorf("%s is not in README", m[1])
		}
	}
	for metric, labels := range promised {
		if !exposed[metric] {
			t.Errorf("%s is not exposed", metric)
			continue
		}
		sample := regexp.MustCompile(`(?m)^` + metric + `(?:_count)?(?:\{([^}]*)\})? `).FindStringSubmatch(body)
		if sample == nil {
			t.Errorf("%s has no sample", metric)
			continue
		}
		var has []string
		for _, l := range regexp.MustCompile(`([a-z]+)="`).FindAllStringSubmatch(sample[1], -1) {
			has = append(has, l[1])
		}
		slices.Sort(has)
		slices.Sort(labels)
		if !slices.Equal(has, labels) {
			t.Errorf("%s has the labels %v, README says %v", metric, has, labels)
		}
	}
	if code, stdout, _ := execute("capture", "status", "--http-listen", p.http); code != 0 || !strings.Contains(stdout, "% of its bound)") {
		t.Errorf("capture status: %d %s", code, stdout)
	}
	p.stop(syscall.SIGTERM, 0)
}
