package postgres

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"unicode/utf8"

	"github.com/tailrace/tailrace/schemas"
)

// MaskKind is what a mask leaves of a column's values.
type MaskKind string

// The kinds of mask. The first two leave nothing, not even which values are null.
const (
	// Redact writes "(redacted)" for text, and null for what is none: such columns are
	// nullable, with their own type. JSON, XML, UUIDs, enums and arrays become text.
	Redact MaskKind = "redact"
	// Constant writes one value of the column's type; XML, enums and arrays become text.
	Constant MaskKind = "constant"
	// Truncate writes the first characters of a text.
	Truncate MaskKind = "truncate"
	// HMAC writes the HMAC-SHA256 of the value's text as PostgreSQL writes it, as text of 64
	// hex digits: equal values stay equal, also between tables with the same key. It is the
	// only one that a key can have.
	HMAC MaskKind = "hmac"
)

// Mask is what is written in place of a column's values. Null stays null with Truncate and
// HMAC.
type Mask struct {
	Kind   MaskKind
	Text   string // of Constant: as a literal of PostgreSQL
	Length int    // of Truncate: characters, from 1
	Key    string // of HMAC: minHMACKey bytes or more; secret
}

// redacted is what a redacted text is.
const redacted = "(redacted)"

// minHMACKey is the least number of bytes that keep a key from being guessed.
const minHMACKey = 16

// Validate returns what is wrong with a mask by itself. It never shows the key.
func (m *Mask) Validate() error {
	switch {
	case m.Kind == HMAC && len(m.Key) < minHMACKey:
		return misconfigured("make one: openssl rand -base64 32", "the key of an hmac is shorter than %d bytes", minHMACKey)
	case m.Kind == Truncate && m.Length < 1:
		return misconfigured("give the number of characters that stay; or use redact", "a text cannot be truncated to %d characters", m.Length)
	}
	switch m.Kind {
	case Redact, Constant, Truncate, HMAC:
		return nil
	}
	return misconfigured("use redact, truncate, hmac or constant", "unknown kind of mask %q", m.Kind)
}

// identity is a stable text that differs for masks that write different things. It holds no
// key: a key is known by what it makes of a fixed text.
func (m *Mask) identity() string {
	key := ""
	if m.Kind == HMAC {
		mac := hmac.New(sha256.New, []byte(m.Key))
		mac.Write([]byte("tailrace: identity of a mask's key"))
		key = hex.EncodeToString(mac.Sum(nil))
	}
	return fmt.Sprintf("%s %d %q %s", m.Kind, m.Length, m.Text, key)
}

// column returns the masked form of a column. Neither a default nor an enum's labels are in
// it.
func (m *Mask) column(c schemas.Column, key bool) (schemas.Column, error) {
	if key && m.Kind != HMAC {
		return c, misconfigured("use hmac, which keeps equal values equal; or have the key written as it is", "it is part of the key, and %s would make rows one", m.Kind)
	}
	if err := m.fits(&c.Type); err != nil {
		return c, err
	}
	c.Default = schemas.Default{}
	switch own := m.keepsType(c.Type.Kind); {
	case !own:
		c.Type = schemas.Type{Kind: schemas.String}
	case m.Kind == Redact:
		c.Nullable = c.Nullable || c.Type.Kind != schemas.String
	}
	return c, nil
}

// keepsType says whether a masked column keeps its type, or becomes text.
func (m *Mask) keepsType(k schemas.Kind) bool {
	switch k {
	case schemas.Enum, schemas.Array, schemas.XML:
		return false
	case schemas.JSON, schemas.UUID:
		return m.Kind == Constant
	}
	return m.Kind != HMAC
}

// fits says why a type cannot be masked so.
func (m *Mask) fits(t *schemas.Type) error {
	switch m.Kind {
	case Truncate:
		if t.Kind != schemas.String {
			return misconfigured("use redact, constant or hmac", "only text can be truncated")
		}
	case Constant:
		if m.keepsType(t.Kind) {
			return m.constantFits(t)
		}
	}
	return nil
}

var uuidText = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func (m *Mask) constantFits(t *schemas.Type) error {
	c := column{}
	err := c.setType(t)
	if err == nil {
		_, err = c.constant(nil, m.Text)
	}
	ok := err == nil && (t.Kind != schemas.JSON || json.Valid([]byte(m.Text))) && (t.Kind != schemas.UUID || uuidText.MatchString(m.Text))
	if !ok {
		return misconfigured("write one as PostgreSQL does; a text in JSON has its quotes; or use redact", "the constant is no value of the column's type")
	}
	return nil
}

// constant appends a literal.
func (c *column) constant(dst []byte, lit string) ([]byte, error) {
	text, ok := neutralText(lit, c.typ)
	if !ok {
		return dst, errNotOfType
	}
	return c.appendNeutral(dst, text)
}

// setMask has a column, which was compiled from its masked form, write what m says.
func (c *column) setMask(m *Mask) (err error) {
	if m == nil {
		return nil
	}
	switch {
	case m.Kind == HMAC && c.typ.Kind == schemas.String:
		c.mac, c.encode = hmac.New(sha256.New, []byte(m.Key)), encodeHMAC
	case m.Kind == Truncate && c.typ.Kind == schemas.String:
		c.length, c.encode = m.Length, encodeTruncated
	case m.Kind == Redact && c.typ.Kind == schemas.String:
		c.fixed = schemas.AppendString(c.branch(), redacted)
	case m.Kind == Redact && c.nullable:
		c.fixed = []byte{c.null}
	case m.Kind == Constant:
		c.fixed, err = c.constant(c.branch(), m.Text)
	default:
		err = errNotOfType
	}
	if err != nil {
		return fmt.Errorf("column %q of its version cannot be masked with %s: %w", c.name, m.Kind, err)
	}
	return nil
}

// encodeHMAC appends the HMAC of a text, in hex.
func encodeHMAC(dst, text []byte, c *column) ([]byte, error) {
	return schemas.AppendString(dst, c.sum(text)), nil
}

// sum returns the HMAC of a text, in hex; it is valid until the next call.
func (c *column) sum(text []byte) []byte {
	c.mac.Reset()
	c.mac.Write(text)
	c.scratch = c.mac.Sum(c.scratch[:0])
	n := len(c.scratch)
	c.scratch = hex.AppendEncode(c.scratch, c.scratch)
	return c.scratch[n:]
}

// encodeTruncated appends the first characters of a text.
func encodeTruncated(dst, text []byte, c *column) ([]byte, error) {
	end := 0
	for n := 0; n < c.length && end < len(text); n++ {
		_, size := utf8.DecodeRune(text[end:])
		end += size
	}
	return schemas.AppendString(dst, text[:end]), nil
}
