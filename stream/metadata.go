package stream

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/segmentio/kafka-go/protocol/metadata"
)

// layout is what is known of the cluster: where each broker listens, and who
// leads which partition. It holds only what was asked for, is never refreshed
// by time, and is asked for again when a broker says that it is out of date
// or does not answer.
type layout struct {
	mutex      sync.Mutex
	brokers    map[int32]string // addresses
	controller int32
	leaders    map[string][]int32 // by topic and partition; -1: none now
}

// leader returns the address of the broker that leads the partition, asking
// for it if it is not known.
func (c *Client) leader(ctx context.Context, op, topic string, partition int32) (string, error) {
	if addr, ok := c.layout.leader(topic, partition); ok {
		return addr, nil
	}
	if err := c.refresh(ctx, []string{topic}); err != nil {
		return "", err
	}
	if addr, ok := c.layout.leader(topic, partition); ok {
		return addr, nil
	}
	if c.layout.knows(topic, partition) {
		return "", answered(op, topic, partition, codeLeaderNotAvailable, "")
	}
	return "", answered(op, topic, partition, codeUnknownTopic, "")
}

// stale notes that what is known of a topic's leaders is no longer true.
func (c *Client) stale(topic string) {
	l := &c.layout
	l.mutex.Lock()
	defer l.mutex.Unlock()
	delete(l.leaders, topic)
}

func (l *layout) leader(topic string, partition int32) (string, bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	leaders := l.leaders[topic]
	if partition < 0 || int(partition) >= len(leaders) {
		return "", false
	}
	addr, ok := l.brokers[leaders[partition]]
	return addr, ok
}

func (l *layout) knows(topic string, partition int32) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return partition >= 0 && int(partition) < len(l.leaders[topic])
}

// some returns the addresses of the brokers that are known.
func (l *layout) some() []string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	var all []string
	for _, addr := range l.brokers {
		all = append(all, addr)
	}
	slices.Sort(all)
	return all
}

// learn takes over an answer. Topics with an error are forgotten, brokers are
// those of the answer.
func (l *layout) learn(res *metadata.Response) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.brokers = make(map[int32]string, len(res.Brokers))
	for _, b := range res.Brokers {
		l.brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	l.controller = res.ControllerID
	if l.leaders == nil {
		l.leaders = make(map[string][]int32)
	}
	for i := range res.Topics {
		t := &res.Topics[i]
		delete(l.leaders, t.Name)
		if t.ErrorCode == 0 {
			l.leaders[t.Name] = leadersOf(t)
		}
	}
}

// leadersOf returns the leaders by partition, -1 where there is none.
func leadersOf(t *metadata.ResponseTopic) []int32 {
	leaders := make([]int32, len(t.Partitions))
	for i := range leaders {
		leaders[i] = -1
	}
	for _, p := range t.Partitions {
		if int(p.PartitionIndex) < len(leaders) && p.PartitionIndex >= 0 {
			leaders[p.PartitionIndex] = p.LeaderID
		}
	}
	return leaders
}

// toLeader sends a request about a partition to its leader, with fn, until it
// succeeds, for at most the client's timeout.
func (c *Client) toLeader(ctx context.Context, op, topic string, partition int32, fn func(ctx context.Context, addr string) error) error {
	return c.retry(ctx, c.timeout, func(ctx context.Context) error {
		addr, err := c.leader(ctx, op, topic, partition)
		if err != nil {
			return err
		}
		err = fn(ctx, addr)
		if e, again := retriable(err); again && e.act != actAgain {
			c.stale(topic)
		}
		return about(err, topic, partition)
	})
}

// refresh asks for the leaders of topics. A topic that is not there is no
// error; one that we may not see is.
func (c *Client) refresh(ctx context.Context, topics []string) error {
	if topics == nil {
		topics = []string{} // nil asks for all
	}
	res, err := c.metadata(ctx, topics)
	if err != nil {
		return err
	}
	for i := range res.Topics {
		if t := &res.Topics[i]; Code(t.ErrorCode) == codeTopicNotAuthorized {
			return answered(opMetadata, t.Name, -1, Code(t.ErrorCode), "")
		}
	}
	return nil
}

// metadata asks any broker about topics, nil for all, and learns the answer.
// It asks the brokers of the configuration first and then those that are known
// beside, once each.
func (c *Client) metadata(ctx context.Context, topics []string) (*metadata.Response, error) {
	req := &metadata.Request{TopicNames: topics}
	var first error
	for _, addr := range append([]string{c.brokers}, c.layout.some()...) {
		res, err := c.send(ctx, opMetadata, addr, req, answerTimeout)
		if err == nil {
			m := res.(*metadata.Response)
			c.layout.learn(m)
			slices.SortFunc(m.Topics, func(a, b metadata.ResponseTopic) int { return cmp.Compare(a.Name, b.Name) })
			return m, nil
		}
		if first == nil {
			first = err
		}
		if _, again := retriable(err); !again {
			break
		}
	}
	return nil, first
}

// controller returns the address of the controller; the brokers of the
// configuration if it is not known.
func (c *Client) controller() string {
	l := &c.layout
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if addr, ok := l.brokers[l.controller]; ok {
		return addr
	}
	return c.brokers
}

// forController sends requests to the controller: fn sends one and returns its
// error. It is tried again as the errors say.
func (c *Client) forController(ctx context.Context, fn func(ctx context.Context, addr string) error) error {
	return c.retry(ctx, c.timeout, func(ctx context.Context) error {
		err := fn(ctx, c.controller())
		if e, again := retriable(err); again && (e.act == actRefresh || e.act == actUnsent || e.act == actUnanswered) {
			if err := c.refresh(ctx, nil); err != nil {
				return err
			}
		}
		return err
	})
}
