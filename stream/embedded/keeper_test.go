package embedded

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tailrace/tailrace/stream"
)

// keeperOf returns a keeper beside the broker's own.
func keeperOf(t *testing.T, b *Broker, dir string) *keeper {
	t.Helper()
	return &keeper{
		cluster: b.cluster, client: client(t, b), guard: b.guard, log: b.guard.log,
		dir: filepath.Join(logDir(dir), "partitions"), live: make(map[string]int64),
	}
}

func segmentBases(t *testing.T, dir, name string) (bases []int64) {
	t.Helper()
	all, err := segments(filepath.Join(logDir(dir), "partitions", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		bases = append(bases, s.base)
	}
	return bases
}

// copyDir copies a data directory as a kill would leave it.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(filepath.Join(to, "copy"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(to, "copy")
}

func TestRetention(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	c := client(t, b)
	k := keeperOf(t, b, dir)
	topic(t, c, "kept", map[string]string{"segment.bytes": "200"})
	topic(t, c, "short", map[string]string{"segment.bytes": "200", "retention.ms": "60000"})
	topic(t, c, "small", map[string]string{"segment.bytes": "200", "retention.bytes": "1000"})
	topic(t, c, "state", map[string]string{"segment.bytes": "100000", "cleanup.policy": "compact", "retention.ms": "1"})
	p := producer(t, c, time.Minute)
	for i := range 40 {
		for _, name := range []string{"kept", "short", "small", "state"} {
			write(t, p, name, fmt.Sprint(i), "v")
		}
	}
	count := func(name string) int { t.Helper(); return len(keys(t, c, name)) }
	keep := func(later time.Duration) {
		t.Helper()
		if err := k.keep(t.Context(), time.Now().Add(later)); err != nil {
			t.Fatal(err)
		}
	}
	keep(0)
	if count("kept") != 40 || count("short") != 40 || count("state") != 40 {
		t.Errorf("kept %d, %d, %d", count("kept"), count("short"), count("state"))
	}
	if n := count("small"); n >= 40 || n < 8 {
		t.Errorf("%d records are within 1000 bytes", n)
	}
	keep(400 * 24 * time.Hour)
	if count("kept") != 40 || count("state") != 40 {
		t.Errorf("after a year: kept %d, %d", count("kept"), count("state"))
	}
	if n := count("short"); n == 0 || n > 3 {
		t.Errorf("after a year: %d records are younger than a minute", n)
	}
	// The next offset survives a kill.
	killed := start(t, Config{Dir: copyDir(t, dir)})
	if o, err := client(t, killed).Offsets(t.Context(), "short", 0); err != nil || o.End != 40 {
		t.Errorf("after a kill: %+v, %v", o, err)
	}
}

// TestNoRetentionByKfake checks the settings that keep kfake from deleting.
func TestNoRetentionByKfake(t *testing.T) {
	b := start(t, Config{Dir: t.TempDir()})
	c := client(t, b)
	topic(t, c, "old", nil)
	batch := new(stream.Batch)
	if err := batch.Append(1000, []byte("k"), []byte("of 1970"), nil); err != nil {
		t.Fatal(err)
	}
	if err := batch.Seal(stream.None, false); err != nil {
		t.Fatal(err)
	}
	if err := producer(t, c, time.Minute).Produce(t.Context(), []*stream.Outgoing{{Topic: "old", Batch: batch}}); err != nil {
		t.Fatal(err)
	}
	b.cluster.ApplyRetention()
	if got := keys(t, c, "old"); len(got) != 1 {
		t.Errorf("kfake has deleted: %v", got)
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	c := client(t, b)
	k := keeperOf(t, b, dir)
	topic(t, c, "state", map[string]string{"segment.bytes": "1000", "cleanup.policy": "compact"})
	p := producer(t, c, time.Minute)
	for i := range 300 {
		write(t, p, "state", fmt.Sprint("key ", i%7), fmt.Sprint("value ", i))
	}
	tombstone := new(stream.Batch)
	for _, key := range []string{"key 1", "key 2"} {
		ts := time.Now()
		if key == "key 2" {
			ts = ts.Add(-48 * time.Hour)
		}
		if err := tombstone.Append(ts.UnixMilli(), []byte(key), nil, []stream.RecordHeader{{Key: "h", Value: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tombstone.Seal(stream.Zstd, false); err != nil {
		t.Fatal(err)
	}
	if err := p.Produce(t.Context(), []*stream.Outgoing{{Topic: "state", Batch: tombstone}}); err != nil {
		t.Fatal(err)
	}
	before, err := c.LoadState(t.Context(), "state")
	if err != nil {
		t.Fatal(err)
	}
	segmentsBefore := segmentBases(t, dir, "state-0")
	if err := k.keep(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	after, err := c.LoadState(t.Context(), "state")
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != 5 || !sameState(before, after) {
		t.Errorf("state was %q and is %q", before, after)
	}
	if got := keys(t, c, "state"); len(got) != 6 || slices.Contains(got, "key 2") { // a young deletion stays
		t.Errorf("records left: %v", got)
	}
	if left := segmentBases(t, dir, "state-0"); len(left) >= len(segmentsBefore) || len(left) > 2 {
		t.Errorf("segments were %v and are %v", segmentsBefore, left)
	}
	// The producer goes on, and what it writes counts.
	write(t, p, "state", "key 0", "newest")
	after["key 0"] = []byte("newest")
	if err := k.keep(t.Context(), time.Now()); err != nil { // too little to do
		t.Fatal(err)
	}
	killed := start(t, Config{Dir: copyDir(t, dir)})
	reloaded, err := client(t, killed).LoadState(t.Context(), "state")
	if err != nil || !sameState(after, reloaded) {
		t.Errorf("after a kill the state is %q, %v", reloaded, err)
	}
}

func sameState(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for key, v := range a {
		if !bytes.Equal(v, b[key]) {
			return false
		}
	}
	return true
}

// TestCompactionBesideAWriter compacts again and again while a producer
// counts two keys up: their last values must be the last that were written.
func TestCompactionBesideAWriter(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	c := client(t, b)
	k := keeperOf(t, b, dir)
	topic(t, c, "state", map[string]string{"segment.bytes": "500", "cleanup.policy": "compact"})
	p := producer(t, c, time.Minute)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 150 {
			out, err := outgoing("state", fmt.Sprint(i%2), fmt.Sprint(i))
			if err == nil {
				err = p.Produce(t.Context(), []*stream.Outgoing{out})
			}
			if err != nil {
				t.Errorf("write %d: %v", i, err)
				return
			}
		}
	}()
	compactions := 0
	for running := true; running; compactions++ {
		select {
		case <-done:
			running = false
		default:
		}
		clear(k.live)
		if err := k.keep(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	state, err := c.LoadState(t.Context(), "state")
	if err != nil || string(state["0"]) != "148" || string(state["1"]) != "149" || len(state) != 2 {
		t.Errorf("after %d compactions the state is %q, %v", compactions, state, err)
	}
	if compactions < 3 {
		t.Errorf("only %d compactions", compactions)
	}
}

func TestPartitionNames(t *testing.T) {
	dir := t.TempDir()
	b := start(t, Config{Dir: dir})
	c := client(t, b)
	topic(t, c, "a-b.c_d-7", map[string]string{"segment.bytes": "100"})
	p := producer(t, c, time.Minute)
	for range 3 {
		write(t, p, "a-b.c_d-7", "k", "some value")
	}
	k := keeperOf(t, b, dir)
	got, ok := k.partition("a-b.c_d-7-0")
	if !ok || got.topic != "a-b.c_d-7" || got.number != 0 || len(got.segments) < 2 || got.segments[0].base != 0 {
		t.Errorf("partition is %+v, %v", got, ok)
	}
	for _, bad := range []string{"nothing", "x-y", "%zz-1", "gone-0"} {
		if got, ok := k.partition(bad); ok {
			t.Errorf("%s is taken for %+v", bad, got)
		}
	}
}
