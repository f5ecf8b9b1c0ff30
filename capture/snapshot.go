package capture

import (
	"context"
	"fmt"

	"github.com/tailrace/tailrace/stream"
)

// The initial snapshot. Its state is `running`, durable under both keys, before the source
// makes what the log needs, and `done`, under both keys, when its last row is: whatever ends
// it in between, the next start finds `running`, gives up the log's slot and begins anew, in
// a new epoch, so that what stands in the topics already is older than everything that
// follows; a TRUNCATE before a table's rows tells its readers.

// newSnapshot is the start of a run that begins with a snapshot: the first of all, or one
// after a snapshot that was interrupted.
func newSnapshot(ctx context.Context, cfg *Config, src Source, info LogInfo, s *state, prod *stream.Producer) (*pipeline, error) {
	tails, err := readTails(ctx, cfg, s)
	if err != nil {
		return nil, err
	}
	st := start{from: positionState{Epoch: 1, Identity: info.Identity, Timeline: info.Timeline, Snapshot: snapshotRunning}}
	if was := s.newest(); was != nil {
		st.maxG, st.from.Epoch = was.G, was.Epoch+1
		cfg.Log.Warn("the tables are read anew", "epoch", st.from.Epoch)
	}
	for _, t := range tails {
		st.from.Epoch = max(st.from.Epoch, t.place.Epoch+1)
	}
	p := newPipeline(cfg, s, st, tails, prod, src)
	p.anew = !s.empty()
	if err := p.writePositions(ctx); err != nil {
		return nil, err
	}
	if info.Ready || info.Lost != nil {
		if err := src.Discard(ctx); err != nil {
			return nil, err
		}
	}
	at, tables, err := src.Prepare(ctx, true)
	if err != nil {
		return nil, err
	}
	p.first = tables // one that joins from now on is found later
	cfg.Log.Info("slot and publication are ready", "position", at.String())
	p.prog.base, p.prog.seen, p.lastCut, p.send.last = at, at, at, at
	return p, p.routeEnd(ctx)
}

// writePositions makes the position durable under both keys, before the sender runs.
func (p *pipeline) writePositions(ctx context.Context) error {
	for range 2 {
		c := p.prog.cut()
		if err := p.send.sendRecords(ctx, []stateRecord{{key: positionKey(c.slot), value: mustJSON(c.position)}}); err != nil {
			return fmt.Errorf("write the first position: %w", err)
		}
		p.prog.redo(c)
	}
	return nil
}

// snapshot writes what the source reads before its log: the rows of tables that cannot be
// read in chunks. That it is done is durable together with the backfills of all others.
func (p *pipeline) snapshot(ctx context.Context, src Source) error {
	if err := src.Snapshot(ctx, p.anew, p); err != nil {
		return err
	}
	p.prog.snapshot = snapshotDone
	records := p.engine.begins(p.first)
	for range 2 {
		p.group.extra = append(p.group.extra, records...)
		if err := p.push(ctx, p.cutGroup()); err != nil {
			return err
		}
		records = nil
	}
	return nil
}
