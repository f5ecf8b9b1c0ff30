// Sink measures how fast a sink brings changes from the topic into PostgreSQL, beside the
// database's own way to the same rows.
//
//	go run ./deploy/bench/sink [-rows 1000000] [-runs 3] [-least 0.5] [-profile FILE]
//
// Before the clock starts, changes of a table of orders (13 columns; 80 % inserts, 15 %
// updates, 5 % deletes, ten to a source transaction) are written into a topic as a capture
// writes them, with their END records, on Apache Kafka, which is another process. Then the
// two ways are run in turn, each into a new database with the same empty table:
//
//   - yardstick: the rows as they are at the end and the keys that are gone, COPY text made
//     before, by one COPY each into temporary tables, then DELETE and INSERT … ON CONFLICT,
//     in one transaction;
//   - tailrace: sinks.Run with sinks/postgres in the bench's process, in mode transactions,
//     from its start until the position of the last END record is in tailrace.position.
//
// Both have to end with equal tables. The last line is one JSON object, of the medians;
// ratio is yardstick / tailrace. Exit code: 0; 4 the tables differ or the ratio is below
// -least; 1 the bench itself could not do its work; 2 usage.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

type options struct {
	rows    int     // changes
	runs    int     // of each way
	least   float64 // ratio
	profile string  // file for the CPU profile of the sink's runs; "": none
}

// timing is one run of one way.
type timing struct {
	seconds float64
	cpu     float64 // seconds of the bench's process
	batches uint64  // of the sink
	table   string  // what the table is at the end
}

// result as JSON is the last line of the output.
type result struct {
	Rows      int     `json:"rows"`
	Yardstick float64 `json:"yardstick_s"`
	Tailrace  float64 `json:"tailrace_s"`
	Ratio     float64 `json:"ratio"`

	counts     counts
	yardsticks []timing
	tailraces  []timing
}

func main() {
	o := options{}
	flag.IntVar(&o.rows, "rows", 1_000_000, "changes in the topic")
	flag.IntVar(&o.runs, "runs", 3, "how often each way is run")
	flag.Float64Var(&o.least, "least", 0.5, "the least ratio")
	flag.StringVar(&o.profile, "profile", "", "file for a CPU profile of the sink's runs")
	flag.Parse()
	if o.rows < 100 || o.runs < 1 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "sink: -rows must be at least 100, -runs at least 1, and there are no arguments")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sink:", err)
		os.Exit(1)
	}
	r.print()
	if !r.equal() || r.Ratio < o.least {
		os.Exit(4)
	}
}

// conclude fills in what the runs say together.
func (r *result) conclude() {
	r.Yardstick, r.Tailrace = median(r.yardsticks), median(r.tailraces)
	r.Ratio = r.Yardstick / r.Tailrace
}

func median(runs []timing) float64 {
	seconds := sorted(runs)
	n := len(seconds)
	return (seconds[(n-1)/2] + seconds[n/2]) / 2
}

// fastest is what a neighbour on the machine has disturbed least.
func fastest(runs []timing) float64 { return sorted(runs)[0] }

func sorted(runs []timing) []float64 {
	seconds := make([]float64, len(runs))
	for i, t := range runs {
		seconds[i] = t.seconds
	}
	slices.Sort(seconds)
	return seconds
}

// equal says whether every run of either way ended with the same table.
func (r *result) equal() bool {
	want := r.yardsticks[0].table
	differs := func(t timing) bool { return t.table != want }
	return !slices.ContainsFunc(r.yardsticks, differs) && !slices.ContainsFunc(r.tailraces, differs)
}

func (r *result) print() {
	c := r.counts
	fmt.Printf("changes    %d: %d inserts, %d updates, %d deletes in %d transactions\n", r.Rows, c.inserts, c.updates, c.deletes, c.transactions)
	fmt.Printf("%-10s %4s %9s %12s %9s %8s  %s\n", "", "run", "seconds", "changes/s", "client s", "batches", "rows and checksum")
	for i := range r.yardsticks {
		r.yardsticks[i].print("yardstick", i, r.Rows)
		r.tailraces[i].print("tailrace", i, r.Rows)
	}
	y, t := fastest(r.yardsticks), fastest(r.tailraces)
	fmt.Printf("medians    %.2f and %.2f s, ratio %.2f; fastest %.2f and %.2f s, ratio %.2f\n", r.Yardstick, r.Tailrace, r.Ratio, y, t, y/t)
	if !r.equal() {
		fmt.Println("THE TABLES DIFFER")
	}
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // a struct of numbers
	}
	fmt.Println(string(line))
}

func (t *timing) print(way string, run, rows int) {
	fmt.Printf("%-10s %4d %9.2f %12.0f %9.2f %8d  %s\n", way, run+1, t.seconds, float64(rows)/t.seconds, t.cpu, t.batches, t.table)
}
