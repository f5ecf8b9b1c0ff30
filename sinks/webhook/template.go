package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/tailrace/tailrace/sinks"
)

// place is where a template's value goes, which decides how it is escaped.
type place uint8

const (
	inPath place = iota
	inQuery
	inHeader
)

// template is text with places for what a change has:
//
//	{after.COLUMN} {before.COLUMN} {key.COLUMN}   a value of the row, or of its key
//	{schema} {table} {op}                         of the change
//	{{ }}                                         a brace
type template []part

// part is literal text, or a place for a value.
type part struct {
	literal string
	source  string // "": literal
	column  string
	place   place
}

var (
	errBrace  = errors.New("has a { that begins no template; write {{ for a brace")
	errClose  = errors.New("has a template without its }")
	errHost   = errors.New("has a template before its path: scheme and host are fixed")
	errScheme = errors.New("is not an address that begins with https:// or http://")
	errParse  = errors.New("is not an address")
	errUser   = errors.New("has a user in it")
	errHash   = errors.New("has a #, which is never sent")
	errDots   = errors.New("has . or .. for a part of its path")
)

// parseTemplate reads a template whose values all go to one place. Errors do not show it.
func parseTemplate(text string, at place) (template, error) {
	var t template
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t = append(t, part{literal: literal.String()})
			literal.Reset()
		}
	}
	for text != "" {
		i := strings.IndexAny(text, "{}")
		if i < 0 {
			literal.WriteString(text)
			break
		}
		literal.WriteString(text[:i])
		brace := text[i]
		if text = text[i+1:]; text != "" && text[0] == brace { // {{ or }}
			literal.WriteByte(brace)
			text = text[1:]
			continue
		}
		if brace == '}' {
			literal.WriteByte(brace)
			continue
		}
		name, rest, closed := strings.Cut(text, "}")
		if !closed {
			return nil, errClose
		}
		p, ok := parsePart(name)
		if !ok {
			return nil, errBrace
		}
		flush()
		p.place = at
		t, text = append(t, p), rest
	}
	flush()
	return t, nil
}

// parsePart reads what stands between the braces.
func parsePart(name string) (part, bool) {
	source, column, dotted := strings.Cut(name, ".")
	switch source {
	case "after", "before", "key":
		return part{source: source, column: column}, dotted && column != ""
	case "schema", "table", "op":
		return part{source: source}, !dotted
	}
	return part{}, false
}

// parseURL reads the template of an address, and returns the scheme and host that all of
// its addresses have.
func parseURL(text string) (t template, base *url.URL, err error) {
	if t, err = parseTemplate(text, inPath); err != nil {
		return nil, nil, err
	}
	var plain strings.Builder
	query, rooted := false, false
	for i := range t {
		if t[i].source != "" {
			if !rooted {
				return nil, nil, errHost
			}
			if query {
				t[i].place = inQuery
			}
			plain.WriteByte('x')
			continue
		}
		plain.WriteString(t[i].literal)
		query = query || strings.Contains(t[i].literal, "?")
		rooted = rooted || hasAuthority(plain.String())
	}
	if base, err = url.Parse(plain.String()); err != nil {
		return nil, nil, errParse // the cause would show the address
	}
	switch {
	case base.Scheme != "https" && base.Scheme != "http":
		return nil, nil, errScheme
	case base.Host == "" || base.Hostname() == "" || base.Opaque != "":
		return nil, nil, errParse
	case base.User != nil:
		return nil, nil, errUser
	case strings.Contains(plain.String(), "#"):
		return nil, nil, errHash
	case dotted(base):
		return nil, nil, errDots
	}
	return t, base, nil
}

// hasAuthority says whether text goes beyond a scheme and a host.
func hasAuthority(text string) bool {
	_, rest, ok := strings.Cut(text, "://")
	return ok && strings.ContainsAny(rest, "/?")
}

// dotted says whether a part of the path would lead a receiver to another one.
func dotted(u *url.URL) bool {
	for segment := range strings.SplitSeq(u.EscapedPath(), "/") {
		plain, err := url.PathUnescape(segment)
		if err != nil || plain == "." || plain == ".." {
			return true
		}
	}
	return false
}

// fixed says whether the template is the same for all changes.
func (t template) fixed() bool {
	return !slices.ContainsFunc(t, func(p part) bool { return p.source != "" })
}

// values gives what a template asks for, of one change.
type values interface {
	value(source, column string) (text []byte, err error)
}

// render appends the text for a change. An error is about the change.
func (t template) render(dst []byte, of values) ([]byte, error) {
	for i := range t {
		p := &t[i]
		if p.source == "" {
			dst = append(dst, p.literal...)
			continue
		}
		text, err := of.value(p.source, p.column)
		if err != nil {
			return dst, fmt.Errorf("{%s}: %w", strings.TrimSuffix(p.source+"."+p.column, "."), err)
		}
		switch p.place {
		case inPath:
			if len(text) == 0 {
				return dst, fmt.Errorf("{%s.%s}: %w", p.source, p.column, errEmpty)
			}
			dst = append(dst, url.PathEscape(string(text))...)
		case inQuery:
			dst = append(dst, url.QueryEscape(string(text))...)
		default:
			dst = appendHeader(dst, text)
		}
	}
	return dst, nil
}

var errEmpty = errors.New("it is empty, and would be a part of the path")

// address renders a template of an address.
func (t template) address(base *url.URL, of values) (*url.URL, error) {
	text, err := t.render(nil, of)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(string(text))
	switch {
	case err != nil:
		return nil, errParse
	case dotted(u):
		return nil, errDots
	case u.Scheme != base.Scheme || u.Host != base.Host || u.User != nil || u.Fragment != "":
		return nil, errHost
	}
	return u, nil
}

// appendHeader appends text as CloudEvents writes it into HTTP headers (HTTP protocol
// binding 1.0.2, 3.1.3.2): space, ", % and all that is not printable ASCII as %XX.
func appendHeader(dst, text []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, b := range text {
		if b <= ' ' || b == '"' || b == '%' || b > '~' {
			dst = append(dst, '%', hex[b>>4], hex[b&15])
			continue
		}
		dst = append(dst, b)
	}
	return dst
}

// rowValues are the values of the change that a Rows has decoded.
type rowValues struct {
	rows *sinks.Rows
	c    *sinks.Change
	room []byte
}

var (
	errNoRow     = errors.New("the change has no such row")
	errNoColumn  = errors.New("there is no such column")
	errNull      = errors.New("it is null")
	errUnchanged = errors.New("the source did not log it, because it was not changed")
)

func (r *rowValues) value(source, column string) ([]byte, error) {
	switch source {
	case "schema":
		return bytes.Clone(r.rows.SourceSchema()), nil
	case "table":
		return bytes.Clone(r.rows.SourceTable()), nil
	case "op":
		return []byte{r.c.Op}, nil
	}
	t := r.c.Table
	i := t.Column(column)
	if i < 0 {
		return nil, errNoColumn
	}
	row := r.rows.After()
	at := i
	switch source {
	case "before":
		row = r.rows.Before()
	case "key":
		if at = slices.Index(t.Key, i); at < 0 {
			return nil, errNoColumn
		}
		var err error
		if row, err = r.rows.Key(r.c); err != nil {
			return nil, err
		}
	}
	if !row.Present() {
		return nil, errNoRow
	}
	v := row.Column(at)
	switch v.State() {
	case sinks.Null:
		return nil, errNull
	case sinks.Unchanged:
		return nil, errUnchanged
	}
	text, _, err := appendText(r.room[:0], v, &t.Columns[i].Type)
	r.room = text
	return text, err
}
