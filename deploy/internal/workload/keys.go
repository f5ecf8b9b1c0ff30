package workload

import (
	"fmt"
	"math/rand/v2"
)

// keysPerTable is how many different keys a writer has in a table: few enough that keys
// come again often.
const keysPerTable = 200

// keys is what a writer knows of its keys in one table.
type keys struct {
	table *Table
	ver   [keysPerTable]int64 // of the last change
	live  [keysPerTable]bool
}

// values are the key columns of the writer's i-th key.
func (k *keys) values(writer, i int) []any {
	switch k.table.Name {
	case "orders":
		return []any{int64(writer)*1_000_000 + int64(i)}
	case "lines":
		return []any{int32(i % 7), fmt.Sprintf("w%d-%d", writer, i)}
	}
	return []any{fmt.Sprintf("AC%02d%06d", writer, i)}
}

// draw picks a key that is live, or one that is not; false: after some tries none was
// found. Half of the draws go to sixteen keys, so that keys meet again soon.
func (k *keys) draw(rng *rand.Rand, live bool) (int, bool) {
	for range 50 {
		i := rng.IntN(keysPerTable)
		if rng.IntN(2) == 0 {
			i = rng.IntN(16)
		}
		if k.live[i] == live {
			return i, true
		}
	}
	return 0, false
}
