// Package registrytest has a registry for tests that need one and are not about it.
package registrytest

import (
	"bytes"
	"context"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/tailrace/tailrace/schemas/registry"
)

// Store is a `_schemas` log in memory. Each writer has its own Log on it.
type Store struct {
	mu      sync.Mutex
	entries []stored
	next    int64
	writers int64 // writers that have fenced so far; the last one may write
}

type stored struct {
	offset int64
	registry.Entry
}

// Log is one writer's view of a Store.
type Log struct {
	store *Store
	epoch int64
}

var _ registry.Log = (*Log)(nil)

// NewLog returns a writer of a new, empty store.
func NewLog() *Log { return new(Store).Log() }

// Log returns another writer of the store.
func (s *Store) Log() *Log { return &Log{store: s} }

// Store returns the store that l writes to.
func (l *Log) Store() *Store { return l.store }

// Fence makes l the store's only writer.
func (l *Log) Fence(context.Context) error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.store.writers++
	l.epoch = l.store.writers
	return nil
}

// Append adds copies of entries, or returns registry.ErrFenced.
func (l *Log) Append(ctx context.Context, entries []registry.Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.epoch == 0 || l.epoch != s.writers {
		return registry.ErrFenced
	}
	for _, e := range entries {
		s.entries = append(s.entries, stored{s.next, registry.Entry{Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Value)}})
		s.next++
	}
	return nil
}

// Read shows the entries from an offset on.
func (l *Log) Read(ctx context.Context, from int64, fn func(int64, registry.Entry) error) (int64, error) {
	if err := ctx.Err(); err != nil {
		return from, err
	}
	s := l.store
	s.mu.Lock()
	entries, end := s.entries, s.next
	s.mu.Unlock()
	for _, e := range entries {
		if e.offset < from {
			continue
		}
		if err := fn(e.offset, registry.Entry{Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Value)}); err != nil {
			return from, err
		}
	}
	return max(from, end), nil
}

// Compact drops every entry that a later one of the same key replaces, and with purge
// also tombstones, as Kafka does once delete.retention.ms has passed.
func (s *Store) Compact(purge bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := make(map[string]int64)
	for _, e := range s.entries {
		last[string(e.Key)] = e.offset
	}
	var kept []stored
	for _, e := range s.entries {
		if last[string(e.Key)] == e.offset && (!purge || e.Value != nil) {
			kept = append(kept, e)
		}
	}
	s.entries = kept
}

// Entries returns copies of what the store holds, in order.
func (s *Store) Entries() []registry.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := make([]registry.Entry, len(s.entries))
	for i, e := range s.entries {
		entries[i] = registry.Entry{Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Value)}
	}
	return entries
}

// Start serves a new registry on loopback until the test ends, and returns its URL.
func Start(tb testing.TB) string {
	tb.Helper()
	s, err := registry.NewServer(tb.Context(), NewLog(), registry.ServerConfig{})
	if err != nil {
		tb.Fatalf("start registry: %v", err)
	}
	h := httptest.NewServer(s)
	tb.Cleanup(h.Close)
	return h.URL
}
