package config

import (
	"fmt"
	"log/slog"
)

// Redacted is what every way of printing a Secret shows.
const Redacted = "(redacted)"

// Secret is text that must not be shown: a password, or a URL that may hold one. It
// redacts itself in fmt (every verb), errors, slog, JSON, YAML and text; only Reveal
// gives it out. The text stands behind a pointer, which is where fmt stops when it is given
// a verb that a struct around the Secret does not know, and then asks no method.
type Secret struct{ text *string }

// NewSecret makes a Secret of text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text itself, for the one place that needs it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Set says whether there is any text.
func (s Secret) Set() bool { return s.Reveal() != "" }

// String implements fmt.Stringer.
func (s Secret) String() string {
	if !s.Set() {
		return ""
	}
	return Redacted
}

// Format implements fmt.Formatter, so that no verb reaches the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler: JSON and any text form.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML implements goccy/go-yaml's interface for values.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalText takes the text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
