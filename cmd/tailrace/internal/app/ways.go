package app

import (
	"strings"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/sinks"
)

// captureHint says what to do about an error of a capture: what it says itself, then the
// command that leads on.
func captureHint(name string) func(error) string {
	return func(err error) string {
		var ways []string
		for _, w := range capture.WaysOf(err) {
			ways = append(ways, command("capture resolve --capture", name, w.Flag, w.Value))
		}
		return leadOn(err, ways)
	}
}

// sinkHint is captureHint for a sink.
func sinkHint(name string) func(error) string {
	return func(err error) string {
		var ways []string
		for _, w := range sinks.WaysOf(err) {
			if w.Flag == sinks.WayLetters {
				ways = append(ways, "tailrace dlq list --sink "+name)
				continue
			}
			ways = append(ways, command("sink resolve --sink", name, w.Flag, w.Value))
		}
		return leadOn(err, ways)
	}
}

func command(verb, name, flag, value string) string {
	c := "tailrace " + verb + " " + name + " --" + flag
	if value != "" {
		c += " " + value
	}
	return c
}

// leadOn adds to the hint of an error that is final the command that leads on: one of ways, or
// where the cause must be mended first, what finds it and what starts again.
func leadOn(err error, ways []string) string {
	hint := Hint(err)
	if !Final(err) || fenced(err) {
		return hint
	}
	var then string
	switch code := ExitCode(err); {
	case len(ways) > 0:
		then = "the way on, which says what it does and asks first: " + strings.Join(ways, "; or ")
	case code == ExitUsage || code == ExitEnvironment:
		then = "tailrace doctor shows whether it is mended; then start again: tailrace run, or SIGHUP if the process still runs"
	default:
		then = "then start again: tailrace run, or SIGHUP if the process still runs"
	}
	if hint == "" {
		return then
	}
	return hint + "; " + then
}
