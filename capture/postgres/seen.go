package postgres

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tailrace/tailrace/capture/backfill"
)

// snapshot is what a statement on a primary sees, as pg_current_snapshot() writes it:
//
//	xmin ':' xmax ':' xip, separated by commas
//
// 64-bit transaction ids: all before xmin have ended, none from xmax on has, and of those
// between xip have not. Source: PostgreSQL's documentation of pg_snapshot.
type snapshot struct {
	xmin, xmax uint64
	xip        []uint64 // sorted
}

var _ backfill.Seen = (*snapshot)(nil)

// parseSnapshot reads the text of a snapshot.
func parseSnapshot(text string) (*snapshot, error) {
	bad := func() error { return fmt.Errorf("%.100q is no snapshot", text) }
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return nil, bad()
	}
	s := &snapshot{}
	var err error
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return nil, bad()
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil || s.xmax < s.xmin {
		return nil, bad()
	}
	if parts[2] == "" {
		return s, nil
	}
	for p := range strings.SplitSeq(parts[2], ",") {
		x, err := strconv.ParseUint(p, 10, 64)
		if err != nil || x < s.xmin || x >= s.xmax {
			return nil, bad()
		}
		s.xip = append(s.xip, x)
	}
	slices.Sort(s.xip)
	return s, nil
}

// Has says whether the snapshot sees what a transaction has written, by its id.
func (s *snapshot) Has(c *backfill.Commit) bool {
	if c.XID == 0 {
		return false
	}
	x, ok := s.widen(uint32(c.XID))
	switch {
	case !ok || x >= s.xmax:
		return false
	case x < s.xmin:
		return true
	}
	_, running := slices.BinarySearch(s.xip, x)
	return !running
}

// widen returns the 64-bit id of which the log has the lower half: the one that is nearest
// to xmax, since a server never has ids in use that lie 2^31 or more apart. There is none
// before the first.
func (s *snapshot) widen(xid uint32) (x uint64, ok bool) {
	ahead := int64(int32(xid - uint32(s.xmax)))
	x = s.xmax + uint64(ahead)
	return x, ahead >= 0 || x < s.xmax
}

// replayed is what a statement on a standby has certainly seen: commits whose records were
// replayed before it began. A standby's snapshot does not list what is running.
type replayed uint64

// Has compares the place of the commit's record.
func (r replayed) Has(c *backfill.Commit) bool { return c.Pos < uint64(r) }

// walPages is how the log is laid out.
type walPages struct {
	page, segment uint64 // bytes
}

// Sizes of the heads of pages. Source: XLogPageHeaderData and XLogLongPageHeaderData in
// PostgreSQL's access/xlog_internal.h.
const (
	shortPageHead = 24
	longPageHead  = 40 // of the first page of a segment
)

// end returns the end of what was written before the place where the next record is going
// to begin. That place stands behind a page's head if the page is new, but the log's reader
// has reached all there is at the page's start.
func (w walPages) end(insert uint64) uint64 {
	head := uint64(shortPageHead)
	start := insert - insert%w.page
	if start%w.segment == 0 {
		head = longPageHead
	}
	if insert-start == head {
		return start
	}
	return insert
}
