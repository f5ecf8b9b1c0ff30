package config

import (
	"fmt"
	"os"
	"strings"
)

// references looks up what `${env:X}` and `${file:/path}` stand for.
type references struct {
	env  func(string) (string, bool)
	file func(string) ([]byte, error)
}

// referenceError says which reference has nothing behind it.
type referenceError struct{ message, hint string }

// Error implements error.
func (e *referenceError) Error() string { return e.message }

// Hint says what to do.
func (e *referenceError) Hint() string { return e.hint }

// replace returns text with every reference replaced; `$${` stands for `${`.
func (r references) replace(text string) (string, *referenceError) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			out.WriteString(text)
			return out.String(), nil
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			out.WriteString(escaped + "${")
			text = rest
			continue
		}
		ref, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", &referenceError{"reference is not closed by }", "write $${ for the two characters ${"}
		}
		value, err := r.lookUp(ref)
		if err != nil {
			return "", err
		}
		out.WriteString(before + value)
		text = after
	}
}

// lookUp returns what one reference stands for.
func (r references) lookUp(ref string) (string, *referenceError) {
	kind, name, _ := strings.Cut(ref, ":")
	switch kind {
	case "env":
		if v, ok := r.env(name); ok {
			return v, nil
		}
		return "", &referenceError{fmt.Sprintf("environment variable %q is not set", name), "set it for this process"}
	case "file":
		b, err := r.file(name)
		if err != nil {
			return "", &referenceError{"cannot read the file: " + err.Error(), "the path must be absolute and readable for this process"}
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	return "", &referenceError{fmt.Sprintf("unknown reference ${%s…}", kind), "write ${env:NAME} or ${file:/path}; $${ for the two characters ${"}
}

// system is the process's own environment and files.
func system() references { return references{env: os.LookupEnv, file: os.ReadFile} }
