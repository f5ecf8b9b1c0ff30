package registry

import "sync"

// cache keeps answers that never change. It is bounded in entries and in bytes; when full
// it forgets everything, which costs one request for each entry that is still needed.
type cache[K comparable, V any] struct {
	mu      sync.Mutex
	entries map[K]V
	bytes   int
}

const (
	cacheEntries = 16384
	cacheBytes   = 64 << 20
)

func (c *cache[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.entries[k]
	return v, ok
}

// put stores v, which with its key takes about size bytes.
func (c *cache[K, V]) put(k K, v V, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil || len(c.entries) >= cacheEntries || c.bytes+size > cacheBytes {
		c.entries, c.bytes = make(map[K]V), 0
	}
	c.entries[k] = v
	c.bytes += size
}
