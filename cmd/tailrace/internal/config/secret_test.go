package config

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"
)

// logged writes secrets through both of slog's own handlers.
func logged(secrets []Secret) string {
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		log := slog.New(h)
		for _, s := range secrets {
			log.Info("m", "secret", s, "pointer", &s, "list", secrets, "error", fmt.Errorf("use %v: %w", s, errors.New("no")))
		}
	}
	return out.String()
}

func TestSecret(t *testing.T) {
	var none Secret
	if none.Set() || none.String() != "" {
		t.Error("an empty secret is set, or shows something")
	}
	s := NewSecret("x")
	if !s.Set() || s.Reveal() != "x" || s.String() != Redacted || fmt.Sprint(s) != Redacted {
		t.Errorf("got %v", s)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "12": 12, "1KiB": 1024, "2 MiB": 2 << 20, "3GiB": 3 << 30, "1TiB": 1 << 40} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: got %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "-1", "1 parrot", "9999999999TiB", "1kb"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %d", text, s)
		}
	}
}
