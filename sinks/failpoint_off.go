//go:build !failpoint

package sinks

// Failpoint does nothing in an ordinary build; see failpoint_on.go.
func Failpoint(string) {}
