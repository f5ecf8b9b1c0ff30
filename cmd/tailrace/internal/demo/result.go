package demo

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Result is what a demo has shown. Rows are those that the workload's statements changed
// in committed transactions, without those that a foreign key changed along.
type Result struct {
	SnapshotRows uint64  `json:"snapshot_rows"` // rows that were there before, applied to the target
	Inserts      int64   `json:"inserts"`
	Updates      int64   `json:"updates"`
	Deletes      int64   `json:"deletes"`
	Transactions int64   `json:"transactions"`
	DDL          int64   `json:"ddl"`
	Applied      uint64  `json:"applied"` // changes applied to the target, the rows of the snapshot included
	Tables       []Table `json:"tables"`
	Equal        bool    `json:"equal"`
	Latency      Latency `json:"latency_ms"` // from the commit in the source until it was durable in the target

	keyChanges, multiTable int64
}

// Table is one table's checksums, as "rows:md5".
type Table struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Target string `json:"target"`
}

// Latency is in milliseconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Missing lists what the demo should have shown and did not; empty: it is a success.
func (r *Result) Missing() []string {
	var out []string
	for _, t := range r.Tables {
		if t.Source != t.Target {
			out = append(out, fmt.Sprintf("table %s differs", t.Name))
		}
	}
	for _, k := range []struct {
		what  string
		count int64
	}{
		{"row of the snapshot", int64(r.SnapshotRows)}, {"insert", r.Inserts}, {"update", r.Updates}, {"delete", r.Deletes},
		{"key change", r.keyChanges}, {"transaction over several tables", r.multiTable}, {"ALTER TABLE", r.DDL}, {"table", int64(len(r.Tables))},
	} {
		if k.count == 0 {
			out = append(out, "no "+k.what+" occurred")
		}
	}
	return out
}

// String is the result for a person.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-14s%-46s%s\n", "TABLE", "SOURCE (rows:md5)", "TARGET")
	for _, t := range r.Tables {
		verdict := "equal"
		if t.Source != t.Target {
			verdict = t.Target + "   DIFFERS"
		}
		fmt.Fprintf(&b, "%-14s%-46s%s\n", t.Name, t.Source, verdict)
	}
	fmt.Fprintf(&b, "\nsnapshot      %d rows\n", r.SnapshotRows)
	fmt.Fprintf(&b, "workload      %d transactions: %d inserts, %d updates, %d deletes, %d key changes, %d ALTER TABLE\n",
		r.Transactions, r.Inserts, r.Updates, r.Deletes, r.keyChanges, r.DDL)
	fmt.Fprintf(&b, "applied       %d changes\n", r.Applied)
	fmt.Fprintf(&b, "latency       p50 %.0f ms, p99 %.0f ms, from commit in the source until durable in the target\n", r.Latency.P50, r.Latency.P99)
	if missing := r.Missing(); len(missing) > 0 {
		fmt.Fprintf(&b, "\nFAILED: %s", strings.Join(missing, "; "))
	} else {
		b.WriteString("\nsource and target are equal")
	}
	return b.String()
}

// latency makes percentiles, which it sorts the list for.
func latency(list []time.Duration) Latency {
	if len(list) == 0 {
		return Latency{}
	}
	slices.Sort(list)
	at := func(p float64) float64 {
		return float64(list[min(int(p*float64(len(list))), len(list)-1)].Microseconds()) / 1000
	}
	return Latency{P50: at(0.50), P99: at(0.99)}
}
