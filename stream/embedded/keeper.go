package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/stream"
)

// keepInterval is how often a keeper looks.
const keepInterval = time.Minute

// A keeper applies the topics' retention and compaction, in place of kfake,
// whose own run is not for data that counts: it applies a retention of a week
// to topics that are only to be compacted, it deletes a log before it writes
// the compacted one, and it may delete the last batch, without which the next
// offset is forgotten in a crash. (So broker.go switches it off.)
type keeper struct {
	cluster *kfake.Cluster
	client  *stream.Client
	guard   *guard
	dir     string // the partitions' directories are in it
	log     *slog.Logger
	live    map[string]int64 // by directory: bytes that were left by the last compaction
}

// A partition is a directory of segments.
type partition struct {
	topic    string
	number   int32
	dir      string
	segments []segment // by base
}

// A segment is a file of batches, named by its first offset.
type segment struct {
	base    int64
	size    int64
	written time.Time // last
}

// run looks at all partitions now and then, until ctx ends.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	for {
		if err := k.keep(ctx, time.Now()); err != nil && ctx.Err() == nil {
			k.log.Warn("embedded broker: retention or compaction failed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// keep looks at all partitions once.
func (k *keeper) keep(ctx context.Context, now time.Time) error {
	entries, err := os.ReadDir(k.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list partitions: %w", err)
	}
	var failed []error
	for _, e := range entries {
		p, ok := k.partition(e.Name())
		if !ok || len(p.segments) < 2 {
			continue // the last segment always stays
		}
		info := k.cluster.TopicInfo(p.topic)
		if info == nil {
			continue
		}
		if err := k.keepPartition(ctx, p, info, now); err != nil {
			failed = append(failed, fmt.Errorf("topic %s partition %d: %w", p.topic, p.number, err))
		}
	}
	return errors.Join(failed...)
}

func (k *keeper) keepPartition(ctx context.Context, p *partition, info *kfake.TopicInfo, now time.Time) error {
	policy := "delete"
	if v := info.Configs["cleanup.policy"]; v != nil {
		policy = *v
	}
	if strings.Contains(policy, "delete") {
		if before, ok := p.expired(number(info, "retention.ms"), number(info, "retention.bytes"), now); ok {
			return k.delete(p, before)
		}
	}
	if strings.Contains(policy, "compact") && p.size() >= 2*k.live[p.dir] {
		return k.compact(ctx, p, info.TopicID, now)
	}
	return nil
}

// number returns a topic's setting, -1 if it has none.
func number(info *kfake.TopicInfo, name string) int64 {
	if v := info.Configs[name]; v != nil {
		if n, err := strconv.ParseInt(*v, 10, 64); err == nil {
			return n
		}
	}
	return -1
}

// partition reads a directory such as orders-0.
func (k *keeper) partition(name string) (*partition, bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return nil, false
	}
	topic, err := url.PathUnescape(name[:i])
	if err != nil {
		return nil, false
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	if err != nil {
		return nil, false
	}
	p := &partition{topic: topic, number: int32(n), dir: filepath.Join(k.dir, name)}
	p.segments, err = segments(p.dir)
	return p, err == nil
}

// segments lists the segments with anything in them.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []segment
	for _, e := range entries {
		text, ok := strings.CutSuffix(e.Name(), ".dat")
		base, err := strconv.ParseInt(text, 10, 64)
		if !ok || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil || info.Size() == 0 {
			continue
		}
		all = append(all, segment{base: base, size: info.Size(), written: info.ModTime()})
	}
	slices.SortFunc(all, func(a, b segment) int { return int(max(-1, min(1, a.base-b.base))) })
	return all, nil
}

func (p *partition) size() (n int64) {
	for _, s := range p.segments {
		n += s.size
	}
	return n
}

// expired returns the offset before which the topic's retention lets go of
// whole segments: those that were last written longer ago than ms, and the
// oldest as long as there are more than bytes. -1 is no bound.
func (p *partition) expired(ms, bytes int64, now time.Time) (before int64, ok bool) {
	size := p.size()
	for i, s := range p.segments[:len(p.segments)-1] {
		old := ms >= 0 && now.Sub(s.written).Milliseconds() > ms
		if !old && (bytes < 0 || size <= bytes) {
			break
		}
		size -= s.size
		before, ok = p.segments[i+1].base, true
	}
	return before, ok
}

// delete removes what lies before an offset. Segments all of which lie before
// it are gone from the disk then.
func (k *keeper) delete(p *partition, before int64) error {
	info := k.cluster.PartitionInfo(p.topic, p.number)
	if info == nil || before <= info.LogStartOffset {
		return nil
	}
	if err := k.cluster.DeleteRecords(p.topic, p.number, before); err != nil {
		return fmt.Errorf("delete records before %d: %w", before, err)
	}
	return nil
}
