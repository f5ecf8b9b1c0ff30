package capture

import (
	"context"
	"strings"
)

// request takes up the backfill that a command asks for.
func (e *engine) request(c *Command) error {
	b := &Backfill{ID: c.ID, Namespace: c.Namespace, Name: c.Name, Cause: CauseRequested, Where: c.Where,
		FromKey: c.FromKey, ToKey: c.ToKey, ToTopic: c.ToTopic, Rate: c.Rate, By: c.By}
	switch {
	case b.ID == "" || b.Namespace == "" || b.Name == "":
		return stopf("name it schema.table", "the request names no table")
	case strings.ContainsAny(b.ID, "/ "):
		return stopf("use letters, digits and -", "backfill id %q", b.ID)
	case e.known[b.ID] != nil:
		return stopf("leave the id out, or choose another", "there is a backfill %s already", b.ID)
	case b.Rate < 0:
		return stopf("leave it out for no limit", "a rate of %d rows a second", b.Rate)
	case e.taken != nil && e.taken[b.Table()] == "":
		return stopf("add it to the capture's tables; that reads its rows, too. Names are case-sensitive", "the capture does not have table %s", b.Table())
	}
	if j := e.on(b.Table()); j != nil {
		return stopf("wait until it has ended, or cancel it: tailrace backfill cancel "+j.b.ID,
			"table %s has backfill %s, which is %s", b.Table(), j.b.ID, j.b.State)
	}
	if err := e.checkCopy(b); err != nil {
		return err
	}
	e.add(b)
	return nil
}

func (e *engine) pause(b *Backfill) error {
	j := e.jobOf(b)
	if j == nil {
		return stopf("only one that has not ended can be paused", "backfill %s is %s", b.ID, b.State)
	}
	e.deactivate(j)
	b.State, b.Resumed = BackfillPaused, nil
	b.Rows, b.Read = j.progress()
	e.touch(b)
	return nil
}

func (e *engine) resume(b *Backfill) error {
	switch b.State {
	case BackfillPaused:
	case BackfillFailed:
		if e.taken != nil && e.taken[b.Table()] == "" {
			return stopf(hintLeft, "the capture does not have table %s any more", b.Table())
		}
		if j := e.on(b.Table()); j != nil {
			return stopf("wait until that one has ended", "table %s has backfill %s meanwhile", b.Table(), j.b.ID)
		}
		j := e.ended[b.ID]
		delete(e.ended, b.ID)
		j.told, j.failures = "", 0
		e.jobs = append(e.jobs, j)
	default:
		return stopf("only one that is paused or has failed can be resumed", "backfill %s is %s", b.ID, b.State)
	}
	b.State, b.Ended, b.Error, b.Hint = BackfillWaiting, nil, "", ""
	e.touch(b)
	return nil
}

// cancel ends a backfill for good, also one that has failed.
func (e *engine) cancel(ctx context.Context, b *Backfill) error {
	j := e.jobOf(b)
	if j == nil && b.State == BackfillFailed {
		j = e.ended[b.ID]
		delete(e.ended, b.ID)
	}
	if j == nil {
		return stopf("only one that has not ended can be cancelled", "backfill %s is %s", b.ID, b.State)
	}
	return e.end(ctx, j, BackfillCancelled, nil)
}
