// Bigtx sends one large source transaction through the capture, with the broker (Apache
// Kafka) in another process, and shows what memory that takes: nothing of a transaction is
// held, so the capture's peak must not grow with it.
//
//	go run ./deploy/bench/bigtx [-size 2GiB] [-row 1000] [-limit 256] [-kills N]
//
// With -kills the capture is killed so often in the middle of the transaction, which is
// larger than one Kafka transaction may be, and has to go on where its records end.
//
// It counts the rows with a reader that is not the product's, and checks that each is there
// once, in order, before the END record. The last line is one JSON object. Exit code: 0;
// 4 rows are missing, repeated or out of order, the capture stopped, or its peak was above
// the limit; 1 the bench itself could not do its work; 2 usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

type options struct {
	size  int64   // bytes of column values in the transaction
	row   int     // bytes of column values in a row
	limit float64 // MiB resident
	kills int
}

// result as JSON is the last line of the output.
type result struct {
	Bytes        int64   `json:"bytes"` // of column values
	Rows         int64   `json:"rows"`
	Read         int64   `json:"read"` // rows that the reader found
	Faults       int     `json:"faults"`
	RSS          float64 `json:"rss_mib"`       // peak resident memory of the capture
	Seconds      float64 `json:"seconds"`       // from the commit to the END record
	WriteSeconds float64 `json:"write_seconds"` // that the database took for the transaction
	Rate         float64 `json:"mib_per_second"`
	Kills        int     `json:"kills"`
	Stopped      string  `json:"stopped,omitempty"`
	fault        string
}

func main() {
	o := options{}
	size := flag.String("size", "2GiB", "size of the transaction: a number, with KiB, MiB or GiB")
	flag.IntVar(&o.row, "row", 1000, "bytes per row")
	flag.Float64Var(&o.limit, "limit", 256, "the most MiB that may be resident")
	flag.IntVar(&o.kills, "kills", 0, "how often to kill the capture in the middle")
	flag.Parse()
	var err error
	if o.size, err = parseSize(*size); err != nil || o.row < 64 {
		fmt.Fprintln(os.Stderr, "bigtx: -size must be a size, -row at least 64:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bigtx:", err)
		os.Exit(1)
	}
	r.print(o)
	if !r.good(o) {
		os.Exit(4)
	}
}

func parseSize(text string) (int64, error) {
	unit := int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = number, factor
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, errors.Join(fmt.Errorf("no size: %q", text), err)
	}
	return n * unit, nil
}

func (r *result) good(o options) bool {
	return r.Faults == 0 && r.Read == r.Rows && r.Kills == o.kills && r.Stopped == "" && r.RSS <= o.limit
}

func (r *result) print(o options) {
	fmt.Printf("transaction      %.2f GiB in %d rows, written in %.1f s\n", float64(r.Bytes)/(1<<30), r.Rows, r.WriteSeconds)
	fmt.Printf("read             %d rows, %d faults %s\n", r.Read, r.Faults, r.fault)
	fmt.Printf("commit to END    %.1f s, %.0f MiB/s\n", r.Seconds, r.Rate)
	fmt.Printf("kills            %d\n", r.Kills)
	fmt.Printf("peak memory      %.0f MiB of at most %.0f\n", r.RSS, o.limit)
	if r.Stopped != "" {
		fmt.Println("the capture stopped:", r.Stopped)
	}
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // a struct of numbers and texts
	}
	fmt.Println(string(line))
}
