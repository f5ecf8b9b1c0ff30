package demo

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

// view shows a person what happens: a picture that is drawn anew on a terminal, lines
// elsewhere.
type view struct {
	out  io.Writer
	live bool

	drawn int // lines of the last picture
	at    time.Time
	begun time.Time
	tx    int64
	app   uint64
}

// frame is what one picture is made of.
type frame struct {
	server  string // its version
	left    string // how long it goes on
	status  httpapi.Status
	counts  counts
	last    []string
	latency Latency
}

// say writes a line.
func (v *view) say(format string, args ...any) {
	v.clear()
	fmt.Fprintf(v.out, format+"\n", args...)
}

// clear takes the last picture away.
func (v *view) clear() {
	if v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\x1b[J", v.drawn)
		v.drawn = 0
	}
}

// show draws a frame.
func (v *view) show(f *frame) {
	now := time.Now()
	applied, tx := appliedChanges(&f.status), f.counts.transactions
	seconds := max(now.Sub(v.at).Seconds(), 0.001)
	rateTx, rateApplied := float64(tx-v.tx)/seconds, float64(applied-v.app)/seconds
	if v.at.IsZero() {
		v.begun, rateTx, rateApplied = now, 0, 0
	}
	v.at, v.tx, v.app = now, tx, applied
	if !v.live {
		fmt.Fprintf(v.out, "%s  %d transactions (%.0f/s)  %d changes applied (%.0f/s)  lag %.3f s  p50 %.0f ms  p99 %.0f ms\n",
			now.Format(time.TimeOnly), tx, rateTx, applied, rateApplied, lag(&f.status), f.latency.P50, f.latency.P99)
		return
	}
	lines := picture(f, now.Sub(v.begun), rateTx, rateApplied)
	v.clear()
	// Lines that are too long are cut by the terminal, not wrapped: their number counts.
	fmt.Fprint(v.out, "\x1b[?7l"+strings.Join(lines, "\n")+"\n\x1b[?7h")
	v.drawn = len(lines)
}

// picture is a frame as lines.
func picture(f *frame, ran time.Duration, rateTx, rateApplied float64) []string {
	c := &f.counts
	lines := []string{
		fmt.Sprintf("tailrace demo   %s%s", ran.Round(time.Second), f.left),
		"",
		fmt.Sprintf("  shop      %-22s %8d transactions %6.0f/s", f.server, c.transactions, rateTx),
		fmt.Sprintf("     │      %d inserts, %d updates, %d deletes, %d key changes, %d ALTER TABLE", c.rows[insert], c.rows[update], c.rows[remove], c.rows[rekey], c.ddl),
		fmt.Sprintf("  topics    %-22s %8d changes captured, %s", "embedded broker", captured(&f.status), state(&f.status)),
		fmt.Sprintf("     │      tailrace topic list --brokers %s --registry-url %s", f.status.Broker.Address, f.status.Registry.URL),
		fmt.Sprintf("  copy      %-22s %8d changes applied %6.0f/s", f.server, appliedChanges(&f.status), rateApplied),
		fmt.Sprintf("            lag %.3f s, commit to applied p50 %.0f ms, p99 %.0f ms", lag(&f.status), f.latency.P50, f.latency.P99),
		"",
	}
	for _, l := range f.last {
		lines = append(lines, "  "+l)
	}
	return lines
}

// state says what the capture and the sink do, and why if they do not.
func state(s *httpapi.Status) string {
	var parts []string
	for _, c := range s.Captures {
		parts = append(parts, "capture "+string(c.State))
	}
	for _, t := range s.Sinks {
		parts = append(parts, "sink "+string(t.State))
	}
	return strings.Join(append(parts, problems(s)...), ", ")
}

// problems are the errors that a status tells.
func problems(s *httpapi.Status) []string {
	var out []string
	for _, c := range s.Captures {
		if c.Error != nil {
			out = append(out, c.Error.Message)
		}
	}
	for _, t := range s.Sinks {
		if t.Error != nil {
			out = append(out, t.Error.Message)
		}
	}
	return out
}

func captured(s *httpapi.Status) (n uint64) {
	for _, c := range s.Captures {
		for _, k := range c.Events {
			n += k
		}
	}
	return n
}

func appliedChanges(s *httpapi.Status) (n uint64) {
	for _, t := range s.Sinks {
		for _, k := range t.Events {
			n += k
		}
	}
	return n
}

// snapshotted is how many rows of the snapshot the target has.
func snapshotted(s *httpapi.Status) (n uint64) {
	for _, t := range s.Sinks {
		n += t.Events["read"]
	}
	return n
}

func lag(s *httpapi.Status) (l float64) {
	for _, t := range s.Sinks {
		l = max(l, t.Lag)
	}
	return l
}
