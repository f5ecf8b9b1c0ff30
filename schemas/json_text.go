package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds on the text of a schema, whoever sent it.
const (
	maxSchemaBytes = 1 << 20
	maxSchemaDepth = 64 // of types in each other
	maxJSONDepth   = 4 * maxSchemaDepth
)

// Canonical returns the text of a schema without insignificant space, its attributes, their
// order and their spelling of numbers kept, strings escaped only where they must be: two
// texts with the same result are the same schema to the letter. It is no parsing canonical
// form, which would drop defaults and connect.* attributes. It says whether the text is
// JSON, not whether that is a schema.
func Canonical(schema string) (string, error) {
	if len(schema) > maxSchemaBytes {
		return "", fmt.Errorf("read schema: %d bytes, at most %d are allowed", len(schema), maxSchemaBytes)
	}
	c := compactor{in: json.NewDecoder(strings.NewReader(schema)), out: make([]byte, 0, len(schema))}
	c.in.UseNumber()
	if err := c.value(0); err != nil {
		return "", fmt.Errorf("read schema: %w", err)
	}
	if _, err := c.in.Token(); err != io.EOF {
		return "", errors.New("read schema: text after the schema's end")
	}
	return string(c.out), nil
}

// compactor copies one JSON value without its insignificant space.
type compactor struct {
	in  *json.Decoder
	out []byte
}

func (c *compactor) value(depth int) error {
	if depth > maxJSONDepth {
		return fmt.Errorf("nested deeper than %d", maxJSONDepth)
	}
	token, err := c.in.Token()
	if err != nil {
		return err
	}
	switch v := token.(type) {
	case json.Delim:
		return c.container(v, depth)
	case string:
		c.out = appendJSONString(c.out, v)
	case json.Number:
		c.out = append(c.out, v...)
	case bool:
		c.out = fmt.Append(c.out, v)
	case nil:
		c.out = append(c.out, "null"...)
	}
	return nil
}

// container copies what follows an opening delimiter, up to its closing one.
func (c *compactor) container(open json.Delim, depth int) error {
	c.out = append(c.out, byte(open))
	for first := true; c.in.More(); first = false {
		if !first {
			c.out = append(c.out, ',')
		}
		if open == '{' {
			if err := c.value(depth); err != nil { // the member's name
				return err
			}
			c.out = append(c.out, ':')
		}
		if err := c.value(depth + 1); err != nil {
			return err
		}
	}
	end, err := c.in.Token()
	if err != nil {
		return err
	}
	c.out = append(c.out, byte(end.(json.Delim)))
	return nil
}

// appendJSONString appends s as a JSON string, escaped as Java's Jackson does it: quotes,
// backslashes and control characters below 0x20 only.
func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\r':
			dst = append(dst, `\r`...)
		default:
			if c < 0x20 {
				dst = fmt.Appendf(dst, `\u%04X`, c)
			} else {
				dst = append(dst, c)
			}
		}
	}
	return append(dst, '"')
}
