package stream

import (
	"context"
	"net"
	"time"
)

// WrapConnections has every connection that c opens from now on pass through
// wrap.
func (c *Client) WrapConnections(wrap func(net.Conn) net.Conn) {
	c.transport.kafka.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := c.transport.dialer.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(nc), nil
	}
}

// OpenConnections returns how many connections c has.
func (c *Client) OpenConnections() int {
	d := &c.transport.dialer
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return len(d.conns)
}

// SetSequence sets the next sequence number of a partition.
func (p *Producer) SetSequence(topic string, partition, sequence int32) {
	p.sequences[Partition{topic, partition}] = sequence
}

// AgeTransaction makes the open transaction look older.
func (p *Producer) AgeTransaction(by time.Duration) { p.txn.since = p.txn.since.Add(-by) }

// HideFromCoordinator has the open transaction take a partition for one that
// the coordinator knows of.
func (p *Producer) HideFromCoordinator(part Partition) { p.txn.partitions[part] = struct{}{} }

// NextSequence is nextSequence.
var NextSequence = nextSequence
