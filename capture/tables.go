package capture

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"
)

// tablesEvery is how often the source is asked which tables it captures.
const tablesEvery = 2 * time.Second

// watch asks the source again and again which tables it captures, until ctx ends.
func (e *engine) watch(ctx context.Context) {
	tick := time.NewTicker(tablesEvery)
	defer tick.Stop()
	told := ""
	for {
		tables, err := e.src.Tables(ctx)
		switch {
		case err == nil:
			told = ""
			e.inbox.post(func(ctx context.Context) error { return e.tables(ctx, tables) })
		case ctx.Err() == nil && err.Error() != told:
			told = err.Error()
			e.log.Warn("could not look for new tables", "error", err, "hint", HintOf(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-e.p.cfg.Look:
		}
	}
}

// tables compares the tables that are captured with those whose rows from before are taken
// care of, and has the rows of the others read.
func (e *engine) tables(ctx context.Context, tables []CapturedTable) error {
	was := e.taken
	now := make(takenState, len(tables))
	for _, t := range tables {
		now[t.Namespace+"."+t.Name] = t.Identity
	}
	if was != nil && maps.Equal(was, now) {
		return nil
	}
	e.taken = now
	for _, t := range tables {
		// Before anything was noted, all tables are such as are captured since the first start.
		if was == nil || was[t.Namespace+"."+t.Name] == t.Identity || !e.p.cfg.Snapshot.reads() {
			continue
		}
		if err := e.takeUp(ctx, &t); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if now[name] != "" {
			continue
		}
		e.log.Warn("a table has left the capture", "table", name)
		if j := e.on(name); j != nil { // its changes would be missing
			if err := e.end(ctx, j, BackfillFailed, stopf(hintLeft, "table %s has left the capture: it was dropped, or is none of its tables any more", name)); err != nil {
				return err
			}
		}
	}
	return e.p.save(ctx, append(e.changed(), e.takenRecord()))
}

const hintLeft = "if it shall be captured, let it be one of the capture's tables again: then all its rows are read, by another backfill"

func (e *engine) takenRecord() stateRecord {
	return stateRecord{key: takenKey, value: mustJSON(e.taken)}
}

// takeUp has the rows of a table read that has joined the capture, or that took the place of
// another of its name.
func (e *engine) takeUp(ctx context.Context, t *CapturedTable) error {
	name := t.Namespace + "." + t.Name
	if !t.Keyed {
		e.log.Warn("a table that cannot be read in chunks has joined the capture, since it has no key, or a masked one: only what changes from now on is read, not the rows that it has",
			"table", name, "hint", "give it a primary key, then start a backfill of it; one with a masked key is read when a new epoch begins")
		return nil
	}
	if j := e.on(name); j != nil {
		if err := e.end(ctx, j, BackfillFailed, stopf("", "table %s was dropped and made anew, or left the capture meanwhile", name)); err != nil {
			return err
		}
	}
	e.log.Info("a table has joined the capture", "table", name)
	e.add(&Backfill{ID: CauseAdded + "-" + name + "-" + strconv.FormatInt(time.Now().UnixMilli(), 36),
		Namespace: t.Namespace, Name: t.Name, Cause: CauseAdded})
	return nil
}

// begins returns the records of the backfills with which an epoch begins. What an earlier
// epoch had under way ends.
func (e *engine) begins(tables []CapturedTable) []stateRecord {
	var records []stateRecord
	for _, j := range slices.Clone(e.jobs) {
		records = append(records, e.close(j, BackfillCancelled, nil)...)
	}
	e.taken = make(takenState, len(tables))
	for _, t := range tables {
		e.taken[t.Namespace+"."+t.Name] = t.Identity
		if t.Keyed {
			b := &Backfill{ID: initialID(e.p.prog.epoch, t.Namespace+"."+t.Name), Namespace: t.Namespace, Name: t.Name, Cause: CauseInitial}
			e.add(b)
		}
	}
	return append(append(records, e.changed()...), e.takenRecord())
}
