package embedded

// setupError is an error whose cause is outside of the program.
type setupError struct {
	err  error
	hint string
}

func environment(err error, hint string) error { return &setupError{err, hint} }

func (e *setupError) Error() string     { return "embedded broker: " + e.err.Error() }
func (e *setupError) Unwrap() error     { return e.err }
func (e *setupError) Fatal() bool       { return true }
func (e *setupError) Environment() bool { return true }
func (e *setupError) Hint() string      { return e.hint }
