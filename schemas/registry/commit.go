package registry

import (
	"context"
	"errors"
	"fmt"
)

// write changes what the registry holds: it has plan look at the state and say what is to
// be appended, appends it, and reads it back. Only then does it stand in the state. One
// write is under way at a time, so that the state does not change between plan and log.
// A plan without entries is no write.
func (s *Server) write(ctx context.Context, plan func(*state) ([]Entry, error)) error {
	// A client that hangs up must not cut an Append in the middle.
	wait, stopWait := context.WithTimeout(ctx, s.cfg.Timeout)
	defer stopWait()
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-wait.Done():
		return faultf(codeTimeout, "an earlier write has not ended in time")
	}
	work, stopWork := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
	defer stopWork()
	return s.writeAlone(work, plan)
}

// writeAlone is write for the holder of s.writing.
func (s *Server) writeAlone(ctx context.Context, plan func(*state) ([]Entry, error)) error {
	if err := s.Err(); err != nil {
		return fencedFault()
	}
	if s.unsure {
		if _, err := s.catchUp(ctx); err != nil {
			return s.failed(ctx, fmt.Errorf("read the schemas log after an unclear write: %w", err))
		}
	}
	entries, err := plan(s.state) // nobody else changes the state now: reading needs no lock
	if err != nil || len(entries) == 0 {
		return err
	}
	s.unsure = true
	appendErr := s.log.Append(ctx, entries)
	if errors.Is(appendErr, ErrTooLarge) {
		s.unsure = false
		return faultf(codeSchemaTooLarge, "the schema is larger than the registry's log takes")
	}
	if errors.Is(appendErr, ErrFenced) {
		return s.failed(ctx, fmt.Errorf("append to the schemas log: %w", appendErr))
	}
	return s.settle(ctx, entries, appendErr)
}

// settle finds out what became of an Append: whether its answer was good or none, the log
// alone tells what the next start will find.
func (s *Server) settle(ctx context.Context, entries []Entry, appendErr error) error {
	if appendErr != nil {
		// The deadline may be what ended the Append; the log still has to be asked.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
		defer cancel()
	}
	records, err := s.catchUp(ctx)
	switch {
	case err != nil && appendErr != nil:
		return s.failed(ctx, fmt.Errorf("append to the schemas log: %w; then read it: %w", appendErr, err))
	case err != nil:
		return s.failed(ctx, fmt.Errorf("read the schemas log back: %w", err))
	case holds(records, entries):
		return nil
	case appendErr != nil:
		return s.failed(ctx, fmt.Errorf("append to the schemas log: %w", appendErr))
	}
	return s.failed(ctx, errors.New("read the schemas log back: what was written is not there"))
}

// holds says whether records leave each key of entries with the value that it was given.
func holds(records []*record, entries []Entry) bool {
	type content struct {
		value     string
		tombstone bool
	}
	found := make(map[string]content)
	for _, r := range records {
		found[r.key] = content{r.value, r.tombstone}
	}
	wanted := make(map[string]content)
	for _, e := range entries {
		wanted[string(e.Key)] = content{string(e.Value), e.Value == nil}
	}
	for k, want := range wanted {
		if got, ok := found[k]; !ok || got != want {
			return false
		}
	}
	return true
}

// catchUp reads the log from where it was left to its end, and then lets all that it read
// take effect at once. On an error nothing has.
func (s *Server) catchUp(ctx context.Context) ([]*record, error) {
	var records []*record
	next, err := s.log.Read(ctx, s.next, func(offset int64, e Entry) error {
		r, err := parseRecord(offset, e)
		if err == nil {
			records = append(records, r)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		s.state.apply(r)
	}
	s.next, s.unsure = next, false
	return records, nil
}

func fencedFault() *fault {
	return faultf(codeNoLeader, "another registry has taken over; this one answers reads only, until it is started again")
}

// storeError is a fault of the log: its code is told, its cause logged.
type storeError struct {
	fault
	cause error
}

func (e *storeError) Error() string { return e.cause.Error() }
func (e *storeError) Unwrap() error { return &e.fault }

// failed makes the answer for a write that the log did not take. Being fenced ends writing
// for good.
func (s *Server) failed(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrFenced):
		s.fenceErr = err
		close(s.done)
		return &storeError{*fencedFault(), err}
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		return &storeError{*faultf(codeTimeout, "the schemas log did not answer in time; the request may be repeated"), err}
	}
	return &storeError{*faultf(codeStore, "the schemas log could not be written; the request may be repeated"), err}
}

// read has look at the state, while nobody changes it.
func (s *Server) read(look func(*state) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return look(s.state)
}
