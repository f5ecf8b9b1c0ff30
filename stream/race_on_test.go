//go:build race

package stream

// poolAllocs is how many allocations a test forgives where a library keeps its
// scratch space in a sync.Pool: the race detector lets pools drop things at
// random.
const poolAllocs = 100
