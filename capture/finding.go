package capture

// Severity says how much a finding matters.
type Severity string

// The severities, lightest first.
const (
	SeverityOK      Severity = "ok"      // it was tried and works
	SeverityWarning Severity = "warning" // it works, and may fail or harm later
	SeverityError   Severity = "error"   // a capture would not start, or not go on
)

// A Finding is what a source found out about one of its preconditions. Nothing in it holds
// a secret.
type Finding struct {
	Code     string // stable, such as PG_WAL_LEVEL
	Severity Severity
	Setting  string // key of the source's settings that it is about, such as "tables"; "" for all of them
	Found    string // one line
	Mend     string // what to do, one line; "" if nothing has to be done
	// SQL are statements that mend it, in the captured database; nil if none can. They need
	// a superuser, or the owner of what they name.
	SQL     []string
	Restart bool // the server must be restarted after SQL
}

// A TableRef names a table that a source would capture.
type TableRef struct{ Schema, Name string }

// Checked is the answer of a source's check of its preconditions.
type Checked struct {
	Findings []Finding
	Tables   []TableRef // that it would capture, as far as it could be told
}

// CheckOptions say what is checked.
type CheckOptions struct {
	Snapshot bool // the first start reads the tables
	Deep     bool // also what costs more: every table is read, the log is read
	Offline  bool // only the configuration: nothing is connected to
}
