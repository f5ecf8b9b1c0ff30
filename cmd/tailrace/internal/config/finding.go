package config

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// The stable codes of findings.
const (
	CodeSyntax       = "yaml-syntax"   // the file is not YAML
	CodeUnknownKey   = "unknown-key"   // a key that nothing reads
	CodeDuplicateKey = "duplicate-key" // a key given twice in one mapping
	CodeWrongType    = "wrong-type"    // a list where a mapping belongs, text where a number does
	CodeInvalidValue = "invalid-value" // the right type, but not a value that can work
	CodeMissing      = "missing"       // a required key is not there
	CodeConflict     = "conflict"      // two settings exclude each other
	CodeReference    = "reference"     // ${env:X} or ${file:…} has nothing behind it
	CodeNotLoopback  = "not-loopback"  // an address that others could reach
)

// Finding is one mistake in a configuration.
type Finding struct {
	Code       string `json:"code"`
	Path       string `json:"path"`           // where in the configuration, as captures[0].postgres.slot; "" is the file
	Line       int    `json:"line,omitempty"` // from 1; 0: not from the file
	Column     int    `json:"column,omitempty"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"` // what to do instead

	caret, width int // where to underline in the masked line, from 1, and how many characters
}

// Error is what Load returns for a file that cannot be used: every finding, in the
// order of the file.
type Error struct {
	File     string
	Findings []Finding

	lines []string // the file with secrets masked
}

// Error gives every finding with its place and an excerpt.
func (e *Error) Error() string {
	var b strings.Builder
	for i := range e.Findings {
		if i > 0 {
			b.WriteByte('\n')
		}
		e.write(&b, &e.Findings[i])
	}
	return b.String()
}

// Fatal implements the errors' convention: reading the file again will not help.
func (e *Error) Fatal() bool { return true }

// Usage asks for the exit code of a wrong configuration.
func (e *Error) Usage() bool { return true }

// Hint says what to do.
func (e *Error) Hint() string {
	return "correct the configuration; `tailrace config schema` prints what it may contain"
}

// write appends one finding: place, message, suggestion, excerpt with a caret.
func (e *Error) write(b *strings.Builder, f *Finding) {
	b.WriteString(e.File)
	if f.Line > 0 {
		fmt.Fprintf(b, ":%d:%d", f.Line, f.Column)
	}
	fmt.Fprintf(b, ": %s", f.Message)
	if f.Suggestion != "" {
		fmt.Fprintf(b, "; %s", f.Suggestion)
	}
	if f.Line == 0 || f.Line > len(e.lines) {
		return
	}
	num := fmt.Sprint(f.Line)
	fmt.Fprintf(b, "\n  %s | %s\n", num, e.lines[f.Line-1])
	fmt.Fprintf(b, "  %s | %s%s", strings.Repeat(" ", len(num)), strings.Repeat(" ", max(f.caret-1, 0)), strings.Repeat("^", max(f.width, 1)))
}

// span is a part of a line that must not be shown.
type span struct {
	line, column, width int    // from 1, in characters
	show                string // what is shown in its place
}

// excerpts masks spans in lines, and sets each finding's caret to where its column has
// moved to.
func excerpts(lines []string, spans []span, findings []Finding) {
	for i := range findings {
		findings[i].caret = findings[i].Column
	}
	sort.SliceStable(spans, func(i, j int) bool { return spans[i].column > spans[j].column }) // right to left
	for _, s := range spans {
		if s.line < 1 || s.line > len(lines) {
			continue
		}
		line := []rune(lines[s.line-1])
		from := min(max(s.column-1, 0), len(line))
		to := min(from+s.width, len(line))
		lines[s.line-1] = string(line[:from]) + s.show + string(line[to:])
		for i := range findings {
			f := &findings[i]
			switch {
			case f.Line != s.line:
			case f.Column > s.column:
				f.caret += utf8.RuneCountInString(s.show) - (to - from)
			case f.Column == s.column:
				f.width = utf8.RuneCountInString(s.show)
			}
		}
	}
}

// splitLines cuts a file into lines, with tabs as one space so that carets stand right.
func splitLines(src string) []string {
	if !utf8.ValidString(src) {
		src = strings.ToValidUTF8(src, "?")
	}
	lines := strings.Split(src, "\n")
	for i, l := range lines {
		lines[i] = strings.ReplaceAll(strings.TrimSuffix(l, "\r"), "\t", " ")
	}
	return lines
}
