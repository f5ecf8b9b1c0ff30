// Package doctor tries what a configuration needs, part by part: the broker, the registry,
// the database of each capture, the target of each sink. What is tried belongs to the
// packages that need it; here it is put together, and each finding gets its place in the
// configuration.
//
// Nothing is left behind and nobody is disturbed: the broker is tried on a topic and a
// transactional id of the check's own, the registry in a subject of its own, databases in
// transactions that are rolled back and with a temporary slot. So all of it may run.
package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

// Depth says how much is tried.
type Depth string

// The depths.
const (
	Offline Depth = "offline" // the configuration only: nothing is connected to
	Default Depth = "default"
	Deep    Depth = "deep" // also what costs more: every table is read, the log is read
)

// The severities of a finding.
const (
	OK      = "ok"
	Warning = "warning"
	Error   = "error"
)

// Finding is one thing that was found out. Nothing in it holds a secret.
type Finding struct {
	Code     string   `json:"code"`     // stable, see Codes
	Severity string   `json:"severity"` // ok, warning or error
	Path     string   `json:"path"`     // in the configuration, as captures[0].postgres.url
	Found    string   `json:"found"`
	Mend     string   `json:"mend,omitempty"`    // what to do
	SQL      []string `json:"sql,omitempty"`     // statements that do it, in the database that path is about
	Restart  bool     `json:"restart,omitempty"` // that database's server must be restarted after sql
}

// Options say what is tried, and what is known already.
type Options struct {
	Depth  Depth
	Status *httpapi.Status // of a process that answers at http.listen; nil: none does
}

const (
	brokerPatience = 10 * time.Second // for one step
	partPatience   = 2 * time.Minute  // for all of one part
	deepPatience   = 30 * time.Minute
)

// scratch begins the names of what is made at brokers and registries.
const scratch = "__tailrace.doctor."

// scratchName returns a name that nothing else has.
func scratchName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return scratch + hex.EncodeToString(b[:])
}

// checkup is one Run.
type checkup struct {
	cfg  *config.Config
	opts Options

	mu     sync.Mutex
	tables map[string][]capture.TableRef // by prefix of topics
}

// Run tries everything and returns what was found, in the order of the configuration. When
// ctx ends, what was made is taken back, and what was found until then is returned.
func Run(ctx context.Context, cfg *config.Config, o Options) []Finding {
	c := &checkup{cfg: cfg, opts: o, tables: map[string][]capture.TableRef{}}
	patience := partPatience
	if o.Depth == Deep {
		patience = deepPatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	shared := []func(context.Context) []Finding{c.configuration, c.broker, c.registry, c.http}
	var captures, targets []func(context.Context) []Finding
	for i := range cfg.Captures {
		captures = append(captures, func(ctx context.Context) []Finding { return c.capture(ctx, i) })
	}
	for i := range cfg.Sinks {
		targets = append(targets, func(ctx context.Context) []Finding { return c.sink(ctx, i) })
	}
	out := together(ctx, append(shared, captures...))
	return append(out, together(ctx, targets)...) // which want to know the captures' tables
}

// together runs parts side by side and returns their findings in the parts' order.
func together(ctx context.Context, parts []func(context.Context) []Finding) (out []Finding) {
	found := make([][]Finding, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() { found[i] = part(ctx) })
	}
	all.Wait()
	for _, f := range found {
		out = append(out, f...)
	}
	return out
}

// Count returns how many findings have a severity.
func Count(findings []Finding, severity string) (n int) {
	for i := range findings {
		if findings[i].Severity == severity {
			n++
		}
	}
	return n
}

func ok(code, path, format string, args ...any) Finding {
	return Finding{Code: code, Severity: OK, Path: path, Found: fmt.Sprintf(format, args...)}
}
