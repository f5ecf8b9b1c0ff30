package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written as `268435456` or `256MiB`.
type Size int64

var errSize = errors.New("is not a size; write a number of bytes, or one with KiB, MiB, GiB, TiB")

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	t, shift := strings.TrimSpace(string(text)), 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if rest, ok := strings.CutSuffix(t, unit); ok {
			t, shift = strings.TrimSpace(rest), 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return errSize
	}
	*s = Size(n << shift)
	return nil
}
