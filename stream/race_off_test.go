//go:build !race

package stream

const poolAllocs = 0
