package sinks

import (
	"errors"
	"fmt"
)

// Exit codes that an error may ask for by a method Code() int.
const (
	CodeRuntime     = 1
	CodeConfig      = 2
	CodeEnvironment = 3
)

// ErrFenced says that another member has taken a partition since: nothing was written.
var ErrFenced = errors.New("another member has taken over the partitions")

// IsFatal says whether an error ends the sink for good: starting again would meet it
// again, and a person has to decide.
func IsFatal(err error) bool {
	var f interface{ Fatal() bool }
	return errors.As(err, &f) && f.Fatal()
}

// HintOf returns what the operator should do about err; "" if nobody knows.
func HintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// CodeOf returns the exit code that err asks for by Code() int or Environment() bool,
// CodeRuntime if it asks for none.
func CodeOf(err error) int {
	var c interface{ Code() int }
	if errors.As(err, &c) {
		return c.Code()
	}
	var e interface{ Environment() bool }
	if errors.As(err, &e) && e.Environment() {
		return CodeEnvironment
	}
	return CodeRuntime
}

// stop is an error after which the sink must not go on by itself.
type stop struct {
	err  error
	hint string
	code int
	ways []Way // that lead on; none: what the hint says
}

func (e *stop) Error() string { return e.err.Error() }
func (e *stop) Unwrap() error { return e.err }
func (e *stop) Fatal() bool   { return true }
func (e *stop) Hint() string  { return e.hint }
func (e *stop) Code() int     { return e.code }
func (e *stop) Ways() []Way   { return e.ways }

func stopf(hint, format string, args ...any) error {
	return &stop{err: fmt.Errorf(format, args...), hint: hint, code: CodeRuntime}
}

func misconfigured(hint, format string, args ...any) error {
	return &stop{err: fmt.Errorf(format, args...), hint: hint, code: CodeConfig}
}
