package config

import (
	"errors"
	"time"
)

// Duration is a length of time, written as `30s`, `500ms` or `1m30s`.
type Duration time.Duration

var errDuration = errors.New("is not a length of time; write one as 30s, 500ms or 1m30s")

// UnmarshalText reads a duration, which is more than nothing.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return errDuration
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes it as it is read.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }
