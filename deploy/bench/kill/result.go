package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/tailrace/tailrace/deploy/internal/judge"
)

// result is what the run found; as JSON it is the last line of the output.
type result struct {
	Broker       string         `json:"broker"`
	Kills        int            `json:"kills"`
	Failpoints   map[string]int `json:"failpoints"`
	Changes      int            `json:"changes"`
	Lost         int            `json:"lost"`
	Repeated     int            `json:"repeated"`
	Gaps         int            `json:"gaps"`
	Reordered    int            `json:"reordered"`
	Torn         int            `json:"torn"`
	Wrong        int            `json:"wrong"` // records that nobody committed, or with another content
	*verdict                    // of the target; nil without
	*readVerdict                // of backfills; nil without
	Stopped      string         `json:"stopped,omitempty"`
	Mutant       string         `json:"mutant,omitempty"`
	Records      int            `json:"records"`
	Cuts         int            `json:"cuts"` // how often the committed records were judged between kills
	Seconds      float64        `json:"seconds"`
	Seed         uint64         `json:"seed"`

	details []string
}

func newResult(o options) result {
	r := result{Broker: o.broker, Failpoints: map[string]int{}, Mutant: o.mutant, Seed: o.seed}
	if o.backfill {
		r.readVerdict = &readVerdict{}
	}
	if o.target != "" {
		r.verdict = &verdict{Target: o.target}
	}
	for _, name := range o.failpoints() {
		r.Failpoints[name] = 0
	}
	return r
}

// maxDetails bounds what is shown of cuts.
const maxDetails = 20

func (r *result) detail(text string) {
	if len(r.details) < maxDetails {
		r.details = append(r.details, text)
	}
}

// take adds the judge's counts.
func (r *result) take(v *judge.Verdict) {
	r.Lost, r.Repeated, r.Gaps, r.Reordered, r.Wrong = v.Lost, v.Repeated, v.Gaps, v.Reordered, v.Wrong
	r.Torn += v.Torn
	r.Records = v.Records
	r.details = append(r.details, v.Details...)
	if r.readVerdict != nil {
		r.readVerdict.take(&v.ReadVerdict)
	}
}

// good says that nothing was found and the product did not give up.
func (r *result) good() bool {
	if r.verdict != nil && (!r.Equal || r.Half > 0) {
		return false
	}
	if r.readVerdict != nil && !r.readVerdict.good() {
		return false
	}
	return r.Lost+r.Repeated+r.Gaps+r.Reordered+r.Torn+r.Wrong == 0 && r.Stopped == ""
}

// print writes a table, what was found, and the JSON line.
func (r *result) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "broker\t%s\n", r.Broker)
	at := 0
	for _, name := range slices.Concat(sinkFailpoints, backfillFailpoints, failpoints) {
		if n, used := r.Failpoints[name]; used {
			fmt.Fprintf(t, "killed at %s\t%d\n", name, n)
			at += n
		}
	}
	fmt.Fprintf(t, "killed at random\t%d\n", r.Kills-at)
	fmt.Fprintf(t, "changes acknowledged\t%d\nrecords read\t%d\njudged between kills\t%d\n", r.Changes, r.Records, r.Cuts)
	fmt.Fprintf(t, "lost\t%d\nrepeated\t%d\ngaps\t%d\nreordered\t%d\ntorn\t%d\nwrong\t%d\n", r.Lost, r.Repeated, r.Gaps, r.Reordered, r.Torn, r.Wrong)
	if r.verdict != nil {
		fmt.Fprintf(t, "target equal\t%t\nlooks at the target\t%d\nhalf transactions seen\t%d\n", r.Equal, r.Polls, r.Half)
	}
	if r.readVerdict != nil {
		r.readVerdict.print(t)
	}
	fmt.Fprintf(t, "seconds\t%.1f\nseed\t%d\n", r.Seconds, r.Seed)
	if r.Mutant != "" {
		fmt.Fprintf(t, "mutant\t%s\n", r.Mutant)
	}
	t.Flush()
	for _, d := range r.details {
		fmt.Fprintln(w, " ", d)
	}
	if r.Stopped != "" {
		fmt.Fprintln(w, "the capture stopped by itself:", r.Stopped)
	}
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // a struct of numbers and texts
	}
	fmt.Fprintln(w, string(line))
}

// why is the line in which a process that has ended said why: the last that begins with
// "error:", else the last with text.
func why(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "error:") {
			return lines[i]
		}
	}
	return lines[len(lines)-1]
}
