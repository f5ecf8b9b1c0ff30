package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

// lagging is the result of lag.
type lagging struct {
	Max   float64   `json:"max_seconds,omitempty"` // 0: nothing was asked for
	Parts []lagPart `json:"parts"`
}

// lagPart is one capture or sink.
type lagPart struct {
	Kind      string        `json:"kind"` // capture or sink
	Name      string        `json:"name"`
	State     httpapi.State `json:"state"`
	Lag       float64       `json:"lag_seconds"`
	LastEvent *time.Time    `json:"last_event,omitempty"`
	OK        bool          `json:"ok"`
	Cause     string        `json:"cause,omitempty"` // why not
}

// lagCommand asks the running process how far its captures and sinks are behind.
func (c *cli) lagCommand() *cobra.Command {
	var atMost, every time.Duration
	var watch bool
	cmd := &cobra.Command{
		Use:   "lag",
		Short: "Show how far captures and sinks are behind; with --max, fail if it is too far",
		Long: `Show how far captures and sinks of the running process are behind. With --max it is a
check: it exits with 4 if one is further behind, or does not run (a sink that stands by is
fine: another process does its work). The process is asked at http.listen of the
configuration, or at --http-listen; if it does not answer, the exit code is 3.

The lag of a capture is the age of what it has made durable, 0 when it has read all of the
log; that of a sink is the time from the commit of the last applied change until it was
durable in the target.

With --watch it is asked again and again until SIGINT; with --max, until the check fails.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case atMost < 0:
				return usagef(cmd, "--max %s is negative", atMost)
			case every < 100*time.Millisecond:
				return usagef(cmd, "--every %s is shorter than 100ms", every)
			}
			h, err := c.httpSettings()
			if err != nil {
				return err
			}
			ctx, release := c.untilSignal(cmd.Context(), func(os.Signal) {})
			defer release()
			return c.lag(ctx, cmd, h, lagOptions{atMost, watch, every})
		},
	}
	cmd.Flags().DurationVar(&atMost, "max", 0, "lag from which on it fails, such as 30s")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "ask again and again")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "time between two questions of --watch")
	return cmd
}

// lagOptions say what is asked, and how often.
type lagOptions struct {
	max   time.Duration // 0: nothing is checked
	watch bool
	every time.Duration
}

// lag asks once, or until ctx ends or the check fails.
func (c *cli) lag(ctx context.Context, cmd *cobra.Command, h *config.HTTP, o lagOptions) error {
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for {
		s, err := app.StatusOf(ctx, h)
		if ctx.Err() != nil {
			return c.interruption(ctx)
		}
		if err != nil {
			return err
		}
		if err := c.writeLag(cmd, lagOf(s, o.max)); err != nil || !o.watch {
			return err
		}
		select {
		case <-ctx.Done():
			return c.interruption(ctx)
		case <-tick.C:
		}
	}
}

// lagOf judges a status.
func lagOf(s *httpapi.Status, limit time.Duration) lagging {
	l := lagging{Max: limit.Seconds(), Parts: []lagPart{}}
	for _, p := range s.Captures {
		l.Parts = append(l.Parts, lagPart{"capture", p.Name, p.State, p.Lag, p.LastEvent, true, ""})
	}
	for _, p := range s.Sinks {
		l.Parts = append(l.Parts, lagPart{"sink", p.Name, p.State, p.Lag, p.LastEvent, true, ""})
	}
	for i := range l.Parts {
		p := &l.Parts[i]
		standby := p.Kind == "sink" && p.State == httpapi.Standby
		switch {
		case limit == 0 || standby:
		case p.State != httpapi.Running:
			p.OK, p.Cause = false, fmt.Sprintf("is %s", p.State)
		case p.Lag > limit.Seconds():
			p.OK, p.Cause = false, fmt.Sprintf("is %s behind, more than %s", seconds(p.Lag), limit)
		}
	}
	return l
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', 1, 64) + "s" }

// writeLag writes one answer; the error is that of the check.
func (c *cli) writeLag(cmd *cobra.Command, l lagging) error {
	t := table{head: []string{"PART", "NAME", "STATE", "LAG", "LAST CHANGE"}}
	var causes []string
	worst := 0.0
	for _, p := range l.Parts {
		last := "-"
		if p.LastEvent != nil {
			last = p.LastEvent.UTC().Format(time.RFC3339)
		}
		t.rows = append(t.rows, []string{p.Kind, p.Name, string(p.State), seconds(p.Lag), last})
		worst = max(worst, p.Lag)
		if !p.OK {
			causes = append(causes, fmt.Sprintf("%s %q %s", p.Kind, p.Name, p.Cause))
		}
	}
	if len(causes) == 0 {
		return c.answer(cmd, fmt.Sprintf("%s, at most %s behind", count(len(l.Parts), "part"), seconds(worst)), l, t)
	}
	failed := &checkError{strings.Join(causes, "; ")}
	if c.format == "json" {
		return c.refuse(cmd, l, failed)
	}
	if err := c.answer(cmd, "", l, t); err != nil {
		return err
	}
	return failed
}
