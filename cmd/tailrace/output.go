package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/app"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
)

// envelope is every JSON answer.
type envelope struct {
	Command string   `json:"command"` // as "topic list"
	OK      bool     `json:"ok"`
	Summary string   `json:"summary"` // one line for a person
	Result  any      `json:"result"`  // null when there is none
	Error   *failure `json:"error"`   // null when ok
}

// failure is an error in an envelope.
type failure struct {
	Code     string           `json:"code"` // runtime, usage, configuration, environment, check, interrupted
	Message  string           `json:"message"`
	Hint     string           `json:"hint,omitempty"`
	Findings []config.Finding `json:"findings,omitempty"`
}

// table is an answer as lines and columns.
type table struct {
	head []string
	rows [][]string
}

// answer writes a result: as an envelope, or as text if that is not empty, or as a table.
func (c *cli) answer(cmd *cobra.Command, summary string, result any, t table) error {
	if c.format == "json" {
		return c.writeJSON(envelope{Command: commandName(cmd), OK: true, Summary: summary, Result: result})
	}
	if len(t.head) == 0 {
		_, err := fmt.Fprintln(c.out, summary)
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// writeJSON writes v, indented.
func (c *cli) writeJSON(v any) error {
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// fail writes an error and returns its exit code.
func (c *cli) fail(cmd *cobra.Command, err error) int {
	code := app.ExitCode(err)
	var interrupted *interruptedError
	if errors.As(err, &interrupted) {
		return app.ExitInterrupted
	}
	var answered *answeredError
	if errors.As(err, &answered) {
		return app.ExitCode(answered.err)
	}
	f := c.describe(err, code)
	if c.format == "json" {
		_ = c.writeJSON(envelope{Command: commandName(cmd), Summary: f.Message, Error: f})
		return code
	}
	var bad *config.Error
	if errors.As(err, &bad) {
		fmt.Fprintln(c.err, printable(bad.Error()))
	}
	fmt.Fprintln(c.err, "error:", printable(f.Message))
	if f.Hint != "" {
		fmt.Fprintln(c.err, "hint:", printable(f.Hint))
	}
	return code
}

// describe makes the failure of an envelope of an error.
func (c *cli) describe(err error, code int) *failure {
	f := &failure{Message: err.Error(), Hint: app.Hint(err)}
	switch code {
	case app.ExitUsage:
		f.Code = "usage"
	case app.ExitEnvironment:
		f.Code = "environment"
	case app.ExitCheck:
		f.Code = "check"
	default:
		f.Code = "runtime"
	}
	var bad *config.Error
	if errors.As(err, &bad) {
		f.Code, f.Findings = "configuration", bad.Findings
		f.Message = count(len(bad.Findings), "mistake") + " in " + bad.File
	}
	return f
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "ry"); ok {
		return fmt.Sprintf("%d %sries", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// commandName is a command without the program's name.
func commandName(cmd *cobra.Command) string {
	_, name, _ := strings.Cut(cmd.CommandPath(), " ")
	return name
}

// printable replaces control characters but line ends, so that nothing that came from
// outside can command the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// usageError is a command line that cannot be meant.
type usageError struct {
	err  error
	hint string
}

// usagef makes one; its hint names the command's help.
func usagef(cmd *cobra.Command, format string, args ...any) *usageError {
	return &usageError{fmt.Errorf(format, args...), fmt.Sprintf("see `%s --help`", cmd.CommandPath())}
}

// Error implements error.
func (e *usageError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *usageError) Unwrap() error { return e.err }

// Hint says what to do.
func (e *usageError) Hint() string { return e.hint }

// Usage asks for exit code 2.
func (e *usageError) Usage() bool { return true }

// checkError is a check that was asked for and failed.
type checkError struct{ message string }

// Error implements error.
func (e *checkError) Error() string { return e.message }

// Code asks for exit code 4.
func (e *checkError) Code() int { return app.ExitCheck }

// answeredError is an error that the answer on standard output has told already.
type answeredError struct{ err error }

// Error implements error.
func (e *answeredError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *answeredError) Unwrap() error { return e.err }

// interruptedError is an end by SIGINT.
type interruptedError struct{}

// Error implements error.
func (*interruptedError) Error() string { return "interrupted" }

// args checks the number of arguments of a command; names are those for its message.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			return usagef(cmd, "%s needs %s", cmd.CommandPath(), strings.Join(names[len(given):], " and "))
		case len(given) > len(names):
			return usagef(cmd, "%s does not know what to do with %q", cmd.CommandPath(), given[len(names)])
		}
		return nil
	}
}
