package webhook

import (
	"fmt"

	"github.com/tailrace/tailrace/sinks"
)

// Error is an error of the target, or of what the configuration says of it.
type Error struct {
	err   error
	hint  string
	fatal bool
	code  int
}

// Error returns the message, without the hint.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Fatal says that trying again leads to the same error until somebody acts.
func (e *Error) Fatal() bool { return e.fatal }

// Hint says what an operator can do about it.
func (e *Error) Hint() string { return e.hint }

// Code is the exit code of a program that stops for this error, see sinks.CodeOf.
func (e *Error) Code() int { return e.code }

// misconfigured is a fatal error of what the configuration says.
func misconfigured(hint, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), hint, true, sinks.CodeConfig}
}

// unfit is a fatal error of what the target is or allows.
func unfit(hint, format string, args ...any) error {
	return &Error{fmt.Errorf(format, args...), hint, true, sinks.CodeEnvironment}
}

// refuse is an error about one change.
func refuse(c *sinks.Change, advice string, err error) error {
	return &sinks.Refused{Change: c, Err: fmt.Errorf("deliver the change at offset %d of %s/%d: %w", c.Offset, c.Partition.Topic, c.Partition.Number, err), Advice: advice}
}
