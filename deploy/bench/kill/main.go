// Kill proves that no change is lost, repeated or torn, whatever is killed when: it kills
// the capture with SIGKILL, at random moments and at each of its failpoints, while four
// writers insert, update, delete and change keys, and then judges from outside, by the
// writers' own logs of acknowledged commits and by a reader that is not the product's.
//
//	go run ./deploy/bench/kill -broker embedded|kafka [-kills 100] [-changes 50000]
//	    [-target postgres | -backfill] [-failpoint NAME] [-mutant NAME] [-seed N] [-rate N] [-keep]
//
// On the embedded broker, which lives in the capture's process, the broker dies with it.
// On Apache Kafka the committed records are judged after every kill, too: each source
// transaction must be there whole or not at all.
//
// With a target the process has a sink, too, and is killed at the sink's failpoints as well.
// All the while a reader of the target looks for a part of a source transaction; at the end
// the tables of both databases must be equal.
//
// With -backfill the tables hold rows before the capture is started for the first time, which
// reads them beside the log; whenever a backfill has ended the next one of its table is asked
// for, so that some are under way at every kill. Now and then commits stand in the log for a
// while before they are visible, or are visible for a while before the log is sent. A row that
// is read must be the row that the log has left, and no run may read more rows again than were
// in flight. At the end what the topics leave of the tables must be what the database has.
//
// The mutants show that the judge sees what it is there for. Of trust-position and no-drop
// nothing can be seen on Apache Kafka, where the state is committed together with the
// records: use the embedded broker.
//
// The last line is one JSON object. Exit code: 0 nothing is wrong; 4 something is, or the
// capture stopped by itself; 1 the bench itself could not do its work; 2 usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// failpoints are where the product can be told to kill itself; in-end exists on Apache
// Kafka only.
var failpoints = []string{"received", "appended", "produced", "state-written", "in-end", "ended"}

// backfillFailpoints are those of backfills.
var backfillFailpoints = []string{"chunk-read", "chunk-written"}

// backfillMutants are the faults of backfills that the product can be given.
var backfillMutants = []string{"write-at-once", "ignore-arm", "forget-progress", "progress-first", "chunk-lost"}

// sinkFailpoints are those of the sink.
var sinkFailpoints = []string{"sink-received", "sink-mid-batch", "sink-before-commit", "sink-after-commit"}

// perKey is the fault that the sink can be given: its mode that does not keep transactions
// whole.
const perKey = "per-key"

// mutants are the faults that the product can be given.
var mutants = []string{"drop-row", "repeat-row", "drop-tombstone", "ack-early", "trust-position", "no-drop"}

type options struct {
	broker    string
	target    string // "" or "postgres"
	backfill  bool
	rows      int // of each table that nobody changes
	readRate  int // rows a second of each backfill
	kills     int
	changes   int
	failpoint string
	mutant    string
	seed      uint64
	rate      float64
	keep      bool
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		os.Exit(1)
	}
	result.print(os.Stdout)
	if !result.good() {
		os.Exit(4)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("kill", flag.ContinueOnError)
	f.StringVar(&o.broker, "broker", "embedded", "embedded or kafka")
	f.StringVar(&o.target, "target", "", "apply the changes, too: postgres")
	f.BoolVar(&o.backfill, "backfill", false, "have rows of the tables read all the while")
	f.IntVar(&o.rows, "rows", 4000, "with -backfill: rows of a table that stay as they are, at least")
	f.IntVar(&o.readRate, "read-rate", 1500, "with -backfill: rows a second that each reads at most")
	f.IntVar(&o.kills, "kills", 100, "how often to kill the capture")
	f.IntVar(&o.changes, "changes", 50000, "the least number of changes to make")
	f.StringVar(&o.failpoint, "failpoint", "", "use this failpoint only: "+strings.Join(slices.Concat(failpoints, sinkFailpoints, backfillFailpoints), ", "))
	f.StringVar(&o.mutant, "mutant", "", "give the product a fault: "+strings.Join(mutants, ", ")+"; with a target: "+perKey+"; with backfills: "+strings.Join(backfillMutants, ", "))
	f.Uint64Var(&o.seed, "seed", rand.Uint64()>>32, "seed of the writers and the kills")
	f.Float64Var(&o.rate, "rate", 600, "changes per second while the capture is being killed")
	f.BoolVar(&o.keep, "keep", false, "keep the directory with the logs also if nothing is wrong")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case o.broker != "embedded" && o.broker != "kafka":
		return o, fmt.Errorf("no broker %q: embedded or kafka", o.broker)
	case o.target != "" && o.target != "postgres":
		return o, fmt.Errorf("no target %q: postgres", o.target)
	case o.failpoint != "" && !slices.Contains(o.failpoints(), o.failpoint):
		return o, fmt.Errorf("no failpoint %q on %s: %s", o.failpoint, o.broker, strings.Join(o.failpoints(), ", "))
	case o.target != "" && o.backfill:
		return o, errors.New("-target and -backfill do not go together: rows that are read are no transactions, which the target's reader looks for")
	case o.mutant != "" && !slices.Contains(o.mutants(), o.mutant):
		return o, fmt.Errorf("no mutant %q: %s", o.mutant, strings.Join(o.mutants(), ", "))
	case o.kills < 0 || o.changes < 1 || o.rate <= 0 || o.rows < 1 || o.readRate < 4:
		return o, errors.New("-kills, -changes, -rate and -rows must be positive, and -read-rate 4 or more")
	}
	return o, nil
}

// failpoints are those of the target, then those of the broker.
func (o *options) failpoints() []string {
	all := slices.Clone(failpoints)
	if o.target != "" {
		all = slices.Concat(sinkFailpoints, failpoints)
	}
	if o.backfill {
		all = slices.Concat(backfillFailpoints, failpoints)
	}
	return slices.DeleteFunc(all, func(name string) bool {
		return name == "in-end" && o.broker != "kafka" || o.failpoint != "" && name != o.failpoint
	})
}

// mutants are those that the bench can see as it is asked for.
func (o *options) mutants() []string {
	switch {
	case o.target != "":
		return append(slices.Clone(mutants), perKey)
	case o.backfill:
		return slices.Concat(mutants, backfillMutants)
	}
	return mutants
}
