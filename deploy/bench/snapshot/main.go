// Snapshot measures how fast the rows of a table come into its topic, beside COPY of the
// same table to nowhere.
//
//	go run ./deploy/bench/snapshot [-rows 2000000] [-readers 2] [-runs 3] [-broker embedded|kafka] [-most 1.25]
//
// A table of orders (12 columns) is filled in a private PostgreSQL, vacuumed and analysed.
// Then the two ways are run in turn:
//
//   - yardstick: COPY (SELECT …) TO STDOUT over one connection, thrown away;
//   - tailrace: `tailrace run` as a process of its own with a broker of its own, from the
//     beginning of the table's backfill to its end, as the state topic has them.
//
// The rows are counted in the topic. The last line is one JSON object, of the medians; ratio
// is tailrace / yardstick, rss_mib the most memory that the process had, with the embedded
// broker in it. Exit code: 0; 4 a row is missing or repeated, or the ratio is above -most; 1
// the bench itself could not do its work; 2 usage.
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
	rows    int
	readers int
	runs    int // of each way
	broker  string
	most    float64 // ratio
}

// result as JSON is the last line of the output.
type result struct {
	Rows      int     `json:"rows"`
	Yardstick float64 `json:"yardstick_s"`
	Tailrace  float64 `json:"tailrace_s"`
	Ratio     float64 `json:"ratio"`
	RSS       int64   `json:"rss_mib"`

	yardsticks, tailraces []float64
	wrong                 []string // what is wrong with the topics
}

func main() {
	o := options{}
	flag.IntVar(&o.rows, "rows", 2_000_000, "rows of the table")
	flag.IntVar(&o.readers, "readers", 2, "connections that read at the same time")
	flag.IntVar(&o.runs, "runs", 3, "how often each way is run")
	flag.StringVar(&o.broker, "broker", "embedded", "embedded or kafka")
	flag.Float64Var(&o.most, "most", 1.25, "the highest ratio")
	flag.Parse()
	if o.rows < 1 || o.runs < 1 || o.readers < 1 || o.broker != "embedded" && o.broker != "kafka" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "snapshot: -rows, -runs and -readers must be at least 1, -broker embedded or kafka, and there are no arguments")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "snapshot:", err)
		os.Exit(1)
	}
	r.print()
	if len(r.wrong) > 0 || r.Ratio > o.most {
		os.Exit(4)
	}
}

// conclude fills in what the runs say together.
func (r *result) conclude() {
	r.Yardstick, r.Tailrace = median(r.yardsticks), median(r.tailraces)
	r.Ratio = r.Tailrace / r.Yardstick
}

func median(seconds []float64) float64 {
	s := slices.Sorted(slices.Values(seconds))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func (r *result) print() {
	for i := range r.yardsticks {
		fmt.Printf("run %d: yardstick %.2f s (%.0f rows/s), tailrace %.2f s (%.0f rows/s)\n", i+1,
			r.yardsticks[i], float64(r.Rows)/r.yardsticks[i], r.tailraces[i], float64(r.Rows)/r.tailraces[i])
	}
	for _, w := range r.wrong {
		fmt.Println("WRONG:", w)
	}
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // a struct of numbers
	}
	fmt.Println(string(line))
}
