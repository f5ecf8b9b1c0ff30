//go:build !failpoint

package capture

// failpoint and mutant do nothing in an ordinary build; see failpoint_on.go.
func failpoint(string) {}

func mutant(string) bool { return false }

func failSoon(string) {}
