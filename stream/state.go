package stream

import (
	"context"
	"fmt"
)

// LoadState reads a compacted topic as a map: the last committed value of each
// key, in all partitions, up to the last stable offset as of the call. A null
// value deletes its key. Records without a key are an error: they do not
// belong into such a topic.
func (c *Client) LoadState(ctx context.Context, topic string) (map[string][]byte, error) {
	info, err := c.Topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	state := make(map[string][]byte)
	for p := range info.Partitions {
		if err := c.loadPartition(ctx, topic, p, state); err != nil {
			return nil, fmt.Errorf("load state: %w", err)
		}
	}
	return state, nil
}

func (c *Client) loadPartition(ctx context.Context, topic string, partition int32, state map[string][]byte) error {
	_, err := c.ReadCompacted(ctx, topic, partition, 0, func(r *Record) error {
		switch {
		case r.Key == nil:
			return fmt.Errorf("topic %s has a record without a key at partition %d offset %d", topic, partition, r.Offset)
		case r.Value == nil:
			delete(state, string(r.Key))
		default:
			state[string(r.Key)] = own(nil, r.Value)
		}
		return nil
	})
	return err
}
