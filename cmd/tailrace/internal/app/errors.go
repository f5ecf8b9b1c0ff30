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
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
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

// problem is err for the status.
func problem(err error) *httpapi.Problem {
	if err == nil {
		return nil
	}
	return &httpapi.Problem{Message: err.Error(), Hint: Hint(err), Fatal: Final(err)}
}
