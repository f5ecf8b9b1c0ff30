package capture

import (
	"context"
	"fmt"
)

// newTopic routes to a topic for the first time, and returns the state records that must
// be durable before its first record. A topic that is there already keeps its number of
// partitions. Records of ours in it were written by a run whose state is lost.
func (p *pipeline) newTopic(ctx context.Context, name string, t topicState) (_ *topicRoute, records []stateRecord, err error) {
	if t.Partitions, err = p.routes.ensure(ctx, name, t.Partitions); err != nil {
		return nil, nil, fmt.Errorf("make topic %s: %w", name, err)
	}
	for i := range t.Partitions {
		id := PartitionID{name, i}
		if p.prog.parts[id] != nil {
			continue // taken up by a person's decision
		}
		at, err := p.cfg.Client.WaitStable(ctx, name, i)
		if err != nil {
			return nil, nil, fmt.Errorf("wait for %s: %w", id, err)
		}
		end, err := lastRecord(ctx, p.cfg, id, at.Start)
		if err != nil {
			return nil, nil, err
		}
		if end.known {
			return nil, nil, epochf("the state topic was lost or changed by somebody; "+nothingSince,
				"partition %s holds records of a capture that the state does not know", id)
		}
		end.offset = at.End - 1
		p.prog.add(id, end)
		if at.End > 0 {
			records = append(records, stateRecord{key: partitionKey(id), value: mustJSON(partitionState{Offset: end.offset})})
		}
	}
	p.routes.saved.Topics[name] = t
	topic := p.routes.route(name, t, p.prog)
	topic.tracker, topic.copies = p.engine.tracker(name), p.routes.copies[name]
	p.routes.topics[name] = topic
	return topic, append(records, stateRecord{key: routingKey, value: mustJSON(p.routes.saved)}), nil
}

// saveBehind makes state records durable in a commit of their own, after what was admitted
// so far: they must not be read where that is missing, also not where its commit was torn.
func (p *pipeline) saveBehind(ctx context.Context, records []stateRecord) error {
	if p.group.commits > 0 {
		if err := p.push(ctx, p.cutGroup()); err != nil {
			return err
		}
	}
	return p.save(ctx, records)
}

// save makes state records durable in a commit of their own, before whatever is admitted
// from now on: they go to the sender ahead of the group that is being filled.
func (p *pipeline) save(ctx context.Context, records []stateRecord) error {
	if len(records) == 0 {
		return nil
	}
	if p.unended > 0 { // end the Kafka transaction that holds the first part of this one
		if err := p.push(ctx, p.cutGroup()); err != nil {
			return err
		}
	}
	filling := p.group
	if err := p.take(ctx); err != nil {
		return err
	}
	p.group.records = records
	g := p.group
	p.group = filling
	select {
	case p.send.queue <- g:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
