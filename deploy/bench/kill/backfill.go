package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/capture"
	"github.com/tailrace/tailrace/deploy/bench/internal/workload"
	"github.com/tailrace/tailrace/stream"
)

// backfills is what the run found of reading tables beside the log.
type backfills struct {
	Done      int `json:"done"`
	Failed    int `json:"failed"`
	Reads     int `json:"reads"`      // rows of backfills in the topics
	Stale     int `json:"stale"`      // those older than what the log had said before
	ReadAgain int `json:"read_again"` // those that no backfill's progress tells of
	MayAgain  int `json:"may_again"`  // the chunks that may be under way, at each kill
}

const (
	fillRate  = 200 // rows a second: so slow that kills come in the midst
	chunkRows = fillRate / 4
	underWay  = 2*2 + 2 // chunks under way at a time, with two readers
	askPause  = 100 * time.Millisecond
)

// keepFilling asks for a backfill of one table after the other until ctx ends. The broker
// may be away, and the capture dead, at any moment.
func (b *bench) keepFilling(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		table := &workload.Tables[i%len(workload.Tables)]
		if len(table.Key) == 0 {
			continue
		}
		id := fmt.Sprintf("fill-%d-%s", i, table.Name)
		asked := false
		for ctx.Err() == nil && !asked {
			asked = b.ask(ctx, &capture.Command{ID: id, Verb: capture.VerbStart, At: time.Now(), Namespace: "public", Name: table.Name, Rate: fillRate}) == nil
			pause(ctx, askPause)
		}
		for ctx.Err() == nil && !b.ended(ctx, id) {
			pause(ctx, askPause)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// withClient calls fn with a client of the broker, which need not be there.
func (b *bench) withClient(ctx context.Context, fn func(context.Context, *stream.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, err := stream.NewClient(stream.Config{Brokers: []string{b.product.Broker()}})
	if err != nil {
		return err
	}
	defer client.Close()
	return fn(ctx, client)
}

func (b *bench) ask(ctx context.Context, c *capture.Command) error {
	return b.withClient(ctx, func(ctx context.Context, client *stream.Client) error { return capture.Send(ctx, client, prefix, c) })
}

// ended says whether a backfill has ended, or was refused.
func (b *bench) ended(ctx context.Context, id string) (ended bool) {
	_ = b.withClient(ctx, func(ctx context.Context, client *stream.Client) error {
		if out, err := capture.OutcomeOf(ctx, client, prefix, id); err != nil || out == nil {
			return err
		} else if out.Error != "" {
			ended = true
			return nil
		}
		list, err := capture.Backfills(ctx, client, prefix)
		for _, f := range list {
			if f.ID == id {
				ended = f.State.Ended()
			}
		}
		return err
	}) // what fails is asked again
	return ended
}

// restOfBackfills waits until none is under way, so that rows and state are of one moment.
func (b *bench) restOfBackfills(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	for b.backfill {
		var open bool
		err := b.withClient(ctx, func(ctx context.Context, client *stream.Client) error {
			list, err := capture.Backfills(ctx, client, prefix)
			for _, f := range list {
				open = open || !f.State.Ended()
			}
			return err
		})
		if err == nil && !open {
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the last backfill to end: %w", ctx.Err())
		}
		pause(ctx, askPause)
	}
	return nil
}

// judgeBackfills compares the rows in the topics with what the state says of them.
func (b *bench) judgeBackfills(ctx context.Context) error {
	r := b.result.Backfills
	if r == nil {
		return nil
	}
	return b.withClient(ctx, func(ctx context.Context, client *stream.Client) error {
		list, err := capture.Backfills(ctx, client, prefix)
		told := 0
		for _, f := range list {
			told += int(f.Rows)
			switch f.State {
			case capture.BackfillDone:
				r.Done++
			case capture.BackfillFailed:
				r.Failed++
				b.result.detail(fmt.Sprintf("backfill %s failed: %s", f.ID, f.Error))
			}
		}
		r.ReadAgain, r.MayAgain = r.Reads-told, b.result.Kills*underWay*chunkRows
		return err
	})
}
