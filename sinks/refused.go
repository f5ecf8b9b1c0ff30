package sinks

// Refused is an error of Apply about one change: the target takes it neither now nor when it
// is tried again, whatever else is in the batch (a constraint, a value that has no form
// there, an answer 400). Nothing of the batch was applied, or the sink bears with being given
// the same changes again. A sink that cannot tell which change it was returns an error
// of another kind.
type Refused struct {
	Change *Change // of the batch; valid as long as the batch is
	Err    error   // why
	Advice string  // what the operator should do
}

// Error implements error.
func (e *Refused) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Refused) Unwrap() error { return e.Err }

// Fatal: unless the sink has dead letters, it stops here.
func (e *Refused) Fatal() bool { return true }

// Hint says what the operator should do.
func (e *Refused) Hint() string { return e.Advice }
