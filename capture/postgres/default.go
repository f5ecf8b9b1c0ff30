package postgres

import (
	"strconv"
	"strings"

	"github.com/tailrace/tailrace/schemas"
)

// parseDefault reads a column's default from what pg_get_expr makes of it: a literal with
// casts is its value, a call of a function stands for the type's zero. All else is as if
// there were none.
func parseDefault(expression string, r resolvedType) schemas.Default {
	if expression == "" || !r.defaults {
		return schemas.Default{}
	}
	lit, rest, ok := cutLiteral(expression)
	if !ok {
		if r.typ.Kind != schemas.Enum && isCall(expression) {
			return schemas.Default{Kind: schemas.FunctionDefault}
		}
		return schemas.Default{}
	}
	if !areCasts(rest) {
		return schemas.Default{}
	}
	text, ok := neutralText(lit, &r.typ)
	if !ok {
		return schemas.Default{}
	}
	return schemas.Default{Kind: schemas.ValueDefault, Text: text}
}

// cutLiteral reads a number, a string or a truth value at the start of an expression.
func cutLiteral(s string) (value, rest string, ok bool) {
	switch {
	case strings.HasPrefix(s, "("): // (-5)::bigint, and the like
		inner, rest, ok := strings.Cut(s[1:], ")")
		value, left, isLit := cutLiteral(inner)
		return value, rest, ok && isLit && areCasts(left)
	case strings.HasPrefix(s, "'"):
		return cutString(s[1:], false)
	case strings.HasPrefix(s, "E'"):
		return cutString(s[2:], true)
	case s == "true" || s == "false":
		return s, "", true
	}
	end := strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune("+-.0123456789eE", r) })
	if end < 0 {
		end = len(s)
	}
	_, err := strconv.ParseFloat(s[:end], 64)
	return s[:end], s[end:], err == nil || isRangeError(err)
}

func isRangeError(err error) bool {
	n, ok := err.(*strconv.NumError)
	return ok && n.Err == strconv.ErrRange
}

// cutString reads a string after its opening quote. A quote is doubled in it; with escapes
// a backslash is too.
func cutString(s string, escapes bool) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		doubled := i+1 < len(s) && s[i+1] == s[i]
		switch {
		case s[i] == '\'' && !doubled:
			return b.String(), s[i+1:], true
		case s[i] == '\'', escapes && s[i] == '\\' && doubled:
			i++
		case escapes && s[i] == '\\':
			return "", "", false
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// areCasts says whether s is nothing but casts: ::character varying(10)::"My type".
func areCasts(s string) bool {
	for s != "" {
		rest, ok := strings.CutPrefix(s, "::")
		if !ok || rest == "" {
			return false
		}
		quoted := false
		end := strings.IndexFunc(rest, func(r rune) bool {
			if r == '"' {
				quoted = !quoted
			}
			return !quoted && strings.ContainsRune(`:'+*/<>=~!@#%^&|?-`, r)
		})
		if end < 0 {
			return !quoted
		}
		s = rest[end:]
	}
	return true
}

// isCall says whether an expression is a function's call or a keyword that is one, perhaps
// with casts.
func isCall(s string) bool {
	name, rest, ok := strings.Cut(s, "(")
	if !ok {
		word, _, _ := strings.Cut(s, "::")
		switch word {
		case "CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "LOCALTIMESTAMP", "LOCALTIME",
			"CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", "CURRENT_CATALOG", "CURRENT_SCHEMA", "USER":
			return true
		}
		return false
	}
	if name == "" || strings.ContainsAny(name, " '+-*/|") {
		return false
	}
	end := closing(rest)
	return end >= 0 && areCasts(rest[end+1:])
}

// closing returns where the parenthesis is closed that was opened before s.
func closing(s string) int {
	depth, quote := 1, rune(0)
	for i, r := range s {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote = r
		case r == '(':
			depth++
		case r == ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// neutralText turns a literal into the text that schemas.Default has; ok is false if it is
// none of the type.
func neutralText(lit string, t *schemas.Type) (string, bool) {
	switch t.Kind {
	case schemas.Bool:
		switch strings.ToLower(lit) {
		case "t", "true", "yes", "on", "1":
			return "true", true
		case "f", "false", "no", "off", "0":
			return "false", true
		}
		return "", false
	case schemas.Interval:
		months, days, micros, ok := parseInterval([]byte(lit))
		if !ok {
			return "", false
		}
		total, err := schemas.IntervalMicros(months, days, micros)
		return strconv.FormatInt(total, 10), err == nil
	case schemas.Date, schemas.Time, schemas.Timestamp, schemas.ZonedTimestamp:
		c := column{}
		if c.setType(t) != nil || infinite([]byte(lit)) != 0 {
			return "", false
		}
		_, err := c.encode(nil, []byte(lit), &c)
		return lit, err == nil
	}
	return lit, true
}
