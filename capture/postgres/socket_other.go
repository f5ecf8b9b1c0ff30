//go:build !linux

package postgres

// Without SO_RCVLOWAT and a count of what is there, every read is eager.

func available(uintptr) int { return lowWater }

func setLowWater(uintptr, int) error { return nil }
