package sinks

// Severity says how much a finding matters.
type Severity string

// The severities, lightest first.
const (
	SeverityOK      Severity = "ok"      // it was tried and works
	SeverityWarning Severity = "warning" // it works, and may fail or harm later
	SeverityError   Severity = "error"   // the sink would not start, or not go on
)

// A Finding is what a sink found out about one precondition of its target. Nothing in it
// holds a secret.
type Finding struct {
	Code     string // stable, such as TARGET_READ_ONLY
	Severity Severity
	Setting  string // key of the target's settings that it is about, such as "schema"; "" for all of them
	Found    string // one line
	Mend     string // what to do, one line; "" if nothing has to be done
	// SQL are statements that mend it, in the target database; nil if none can. They need a
	// superuser, or the owner of what they name.
	SQL []string
}

// A TableRef names a table of the source that a sink would apply.
type TableRef struct{ Schema, Name string }

// CheckOptions say what is checked.
type CheckOptions struct {
	Tables  []TableRef // of the source that would be applied, as far as they are known
	Offline bool       // only the configuration: nothing is connected to
}
