package app

import (
	"errors"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/schemas/registry"
	"github.com/tailrace/tailrace/stream"
)

// The exit codes of the process.
const (
	ExitOK          = 0
	ExitRuntime     = 1   // something failed while running
	ExitUsage       = 2   // wrong usage or configuration
	ExitEnvironment = 3   // the database, the broker, the machine are not as needed
	ExitCheck       = 4   // a check that was asked for failed
	ExitInterrupted = 130 // SIGINT
)

// ExitCode returns the exit code for err: what the first error of its chain that has a
// method Code, Environment or Usage says; otherwise ExitRuntime.
func ExitCode(err error) int {
	var coded interface{ Code() int }
	var env interface{ Environment() bool }
	var use interface{ Usage() bool }
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &coded):
		return coded.Code()
	case errors.As(err, &use) && use.Usage():
		return ExitUsage
	case errors.As(err, &env) && env.Environment():
		return ExitEnvironment
	}
	return ExitRuntime
}

// Hint returns what the operator should do about err, or "".
func Hint(err error) string {
	if hint := ownHint(err); hint != "" {
		return hint
	}
	switch {
	case errors.Is(err, registry.ErrFenced):
		return "another process serves a registry from the same topic: name its address in registry.url, or give this one a topic of its own in registry.topic"
	case errors.Is(err, stream.ErrFenced):
		return "another process runs this capture: stop one of the two"
	}
	return ""
}

// ownHint returns the first hint that an error of err's tree has.
func ownHint(err error) string {
	if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" {
		return h.Hint()
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return ownHint(u.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range u.Unwrap() {
			if hint := ownHint(one); hint != "" {
				return hint
			}
		}
	}
	return ""
}

// Final says whether starting again after err is wrong: it is fatal, or another process
// has taken over.
func Final(err error) bool {
	var f interface{ Fatal() bool }
	return errors.As(err, &f) && f.Fatal() || fenced(err)
}

// fenced says whether another process has taken over.
func fenced(err error) bool {
	return errors.Is(err, stream.ErrFenced) || errors.Is(err, registry.ErrFenced)
}

// problem is the last error of a part for the status.
func (s *snapshot) problem() *httpapi.Problem {
	if s.err == nil {
		return nil
	}
	return &httpapi.Problem{Message: s.err.Error(), Hint: Hint(s.err), Fatal: s.state == httpapi.Stopped}
}
