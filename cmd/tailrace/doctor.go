package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/doctor"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
)

// diagnosis is the result of doctor.
type diagnosis struct {
	Depth    doctor.Depth     `json:"depth"`
	Errors   int              `json:"errors"`
	Warnings int              `json:"warnings"`
	Findings []doctor.Finding `json:"findings"`
}

// doctorCommand tries everything that the configuration needs.
func (c *cli) doctorCommand() *cobra.Command {
	var offline, deep, codes bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Try everything that the configuration needs, and say how to mend what is missing",
		Long: `Try everything that the configuration needs, and say how to mend what is missing: the
GRANT, the setting, the statement. Nothing is left behind, and nobody is disturbed, so that
captures and sinks may run:

- the database of each capture: versions and settings, a temporary replication slot, the
  publication (in a transaction that is rolled back), a row of the tables, rights to spare
- the broker: a record is written to a topic of the check's own, and read back
- the registry: a schema is registered in a subject of the check's own
- the target of each sink: tables are made and written in a transaction that is rolled back

--offline looks at the configuration only. --deep also reads a row of every table and waits
until a message that it writes to the log comes out of the temporary slot. --codes lists the
codes of findings, which do not change.

Exit codes: 0 nothing or warnings only; 2 the configuration is not valid; 4 an error was
found, also one of an address where nobody answers; 130 interrupted.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if codes {
				return c.doctorCodes(cmd)
			}
			depth := doctor.Default
			switch {
			case offline && deep:
				return usagef(cmd, "--offline and --deep exclude each other")
			case offline:
				depth = doctor.Offline
			case deep:
				depth = doctor.Deep
			}
			cfg, err := c.load()
			if err != nil {
				return err
			}
			return c.doctor(cmd, cfg, depth)
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "look at the configuration only, connect to nothing")
	cmd.Flags().BoolVar(&deep, "deep", false, "also what costs more: read every table, read the log")
	cmd.Flags().BoolVar(&codes, "codes", false, "list the codes of findings and what they say")
	return cmd
}

// doctor runs the check and writes what it found.
func (c *cli) doctor(cmd *cobra.Command, cfg *config.Config, depth doctor.Depth) error {
	ctx, release := c.untilSignal(cmd.Context(), func(os.Signal) {
		fmt.Fprintln(c.err, "stopping: what was made is taken back; a second signal ends it at once")
	})
	defer release()
	o := doctor.Options{Depth: depth}
	if depth != doctor.Offline {
		o.Status = answering(ctx, &cfg.HTTP)
	}
	findings := doctor.Run(ctx, cfg, o)
	d := diagnosis{depth, doctor.Count(findings, doctor.Error), doctor.Count(findings, doctor.Warning), findings}
	summary := fmt.Sprintf("%s, %s, %d ok", count(d.Errors, "error"), count(d.Warnings, "warning"), len(findings)-d.Errors-d.Warnings)
	if ctx.Err() != nil {
		summary = "interrupted: " + summary
	}
	if c.format != "json" {
		c.writeFindings(findings)
		fmt.Fprintln(c.out, summary)
	}
	switch {
	case ctx.Err() != nil:
		return errors.Join(c.interruption(ctx), context.Cause(ctx))
	case d.Errors > 0 && c.format == "json":
		return c.refuse(cmd, d, &checkError{summary})
	case d.Errors > 0:
		return &answeredError{&checkError{summary}}
	case c.format == "json":
		return c.answer(cmd, summary, d, table{})
	}
	return nil
}

// answering is the status of the process that answers where h says; nil: none does.
func answering(ctx context.Context, h *config.HTTP) *httpapi.Status {
	s, err := app.StatusOf(ctx, h)
	if err != nil || s.Started.IsZero() { // another kind of server
		return nil
	}
	return s
}

// doctorCodes lists the codes.
func (c *cli) doctorCodes(cmd *cobra.Command) error {
	t := table{head: []string{"CODE", "WORST", "SAYS"}}
	for _, code := range doctor.Codes {
		t.rows = append(t.rows, []string{code.Code, code.Worst, code.Meaning})
	}
	return c.answer(cmd, count(len(doctor.Codes), "code"), map[string]any{"codes": doctor.Codes}, t)
}

// colours of severities, on a terminal.
var colours = map[string]string{doctor.OK: "\x1b[32m", doctor.Warning: "\x1b[33m", doctor.Error: "\x1b[31m"}

// writeFindings writes a line for each finding, and below it how to mend it.
func (c *cli) writeFindings(findings []doctor.Finding) {
	_, plain := c.env("NO_COLOR")
	writeFindings(c.out, findings, !plain && terminal(c.out))
}

func writeFindings(w io.Writer, findings []doctor.Finding, coloured bool) {
	codes, paths := 0, 0
	for _, f := range findings {
		codes, paths = max(codes, len(f.Code)), max(paths, utf8.RuneCountInString(f.Path))
	}
	for _, f := range findings {
		severity := fmt.Sprintf("%-7s", f.Severity)
		if coloured {
			severity = colours[f.Severity] + severity + "\x1b[0m"
		}
		fmt.Fprintf(w, "%s  %-*s  %-*s  %s\n", severity, codes, f.Code, paths, f.Path, oneLine(f.Found))
		if f.Mend != "" {
			fmt.Fprintf(w, "         hint: %s\n", oneLine(f.Mend))
		}
		for _, statement := range f.SQL {
			if !strings.Contains(f.Mend, statement) {
				fmt.Fprintf(w, "         sql:  %s;\n", oneLine(statement))
			}
		}
		if f.Restart {
			fmt.Fprintln(w, "         then restart the server")
		}
	}
}

// oneLine is printable without line ends.
func oneLine(s string) string { return strings.Join(strings.Fields(printable(s)), " ") }
