package postgres

import (
	"context"
	"strconv"
	"sync"

	"github.com/tailrace/tailrace/capture"
)

// listing is what Tables needs beside Run: a connection of its own, on which it may wait
// for a lock without holding up the log.
type listing struct {
	catalog catalog
	mu      sync.Mutex // held by a call of Tables
	said    map[string]bool
}

// Tables lists the tables whose changes are in the log, as the log names them. If the
// configuration allows that, it first adds new tables to the publication, and takes out
// those that are no longer wanted; what cannot be done there is logged once, and does not
// keep the others from being listed. It may be called from any goroutine.
func (s *Source) Tables(ctx context.Context) ([]capture.CapturedTable, error) {
	s.listing.mu.Lock()
	defer s.listing.mu.Unlock()
	sql, err := s.listing.catalog.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.fit(ctx, sql, s.leaveOut); err != nil {
		return nil, err
	}
	found, err := s.tablesToRead(ctx, sql, tableName{})
	if err != nil {
		return nil, err
	}
	return captured(found), nil
}

func captured(found []*readTable) []capture.CapturedTable {
	tables := make([]capture.CapturedTable, len(found))
	for i, t := range found {
		tables[i] = capture.CapturedTable{Namespace: t.schema, Name: t.name,
			Identity: strconv.FormatUint(uint64(t.oid), 10), Keyed: t.keyed}
	}
	return tables
}

// leaveOut logs an error that lasts until somebody acts, once, and returns any other.
func (s *Source) leaveOut(err error) error {
	if err == nil || !capture.IsFatal(err) {
		return err
	}
	if text := err.Error(); !s.listing.said[text] {
		s.listing.said[text] = true
		s.log.Warn("the publication is not as the configuration says", "error", text, "hint", capture.HintOf(err))
	}
	return nil
}
