package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/deletetopics"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// A TopicSpec says what a topic is to be like.
type TopicSpec struct {
	Name        string
	Partitions  int32             // 0 or less: as the broker has it
	Replication int16             // 0 or less: as the broker has it
	Config      map[string]string // such as cleanup.policy: compact
	Create      bool              // whether it may be created
}

// TopicInfo is what a topic is like.
type TopicInfo struct {
	Name        string
	Partitions  int32
	Replication int16
	Internal    bool // one of Kafka's own
	Created     bool // by this call of EnsureTopic
}

// EnsureTopic makes sure that a topic exists and that each partition has a
// leader. What exists is left as it is, also with other partitions than spec
// has: the caller looks at the answer. If the topic is not there and must not
// or cannot be created, the error is fatal and its hint is the command that
// creates it.
func (c *Client) EnsureTopic(ctx context.Context, spec TopicSpec) (TopicInfo, error) {
	info, err := c.topicNow(ctx, spec.Name)
	if e, ok := asError(err); ok && errors.Is(e, ErrNotAuthorized) {
		return info, c.cannotCreate(spec, e) // brokers do not say whether it is there
	}
	if !errors.Is(err, ErrNoTopic) {
		return info, err
	}
	if !spec.Create {
		return TopicInfo{}, c.cannotCreate(spec, &Error{Op: "look for", Topic: spec.Name, Partition: -1, Err: ErrNoTopic, act: actStop})
	}
	created, err := c.createTopic(ctx, spec)
	if err != nil {
		if e, ok := asError(err); ok && e.act == actStop {
			return TopicInfo{}, c.cannotCreate(spec, e)
		}
		return TopicInfo{}, err
	}
	err = c.retry(ctx, c.timeout, func(ctx context.Context) error {
		info, err = c.topicOnce(ctx, spec.Name)
		return err
	})
	info.Created = created
	return info, err
}

// cannotCreate adds to e how a person creates the topic.
func (c *Client) cannotCreate(spec TopicSpec, e *Error) *Error {
	var b strings.Builder
	fmt.Fprintf(&b, "create it: kafka-topics.sh --bootstrap-server %s --create --topic %s", c.brokers, spec.Name)
	if spec.Partitions > 0 {
		fmt.Fprintf(&b, " --partitions %d", spec.Partitions)
	}
	if spec.Replication > 0 {
		fmt.Fprintf(&b, " --replication-factor %d", spec.Replication)
	}
	for _, name := range sortedKeys(spec.Config) {
		fmt.Fprintf(&b, " --config %s=%s", name, spec.Config[name])
	}
	if e.hint != "" && errors.Is(e, ErrNotAuthorized) {
		b.WriteString("; or " + e.hint)
	}
	e.hint = b.String()
	return e
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// createTopic asks the controller to create the topic; false means that it
// was there.
func (c *Client) createTopic(ctx context.Context, spec TopicSpec) (created bool, err error) {
	topic := createtopics.RequestTopic{Name: spec.Name, NumPartitions: -1, ReplicationFactor: -1}
	if spec.Partitions > 0 {
		topic.NumPartitions = spec.Partitions
	}
	if spec.Replication > 0 {
		topic.ReplicationFactor = spec.Replication
	}
	for _, name := range sortedKeys(spec.Config) {
		topic.Configs = append(topic.Configs, createtopics.RequestConfig{Name: name, Value: spec.Config[name]})
	}
	req := &createtopics.Request{Topics: []createtopics.RequestTopic{topic}, TimeoutMs: int32(brokerTimeout / time.Millisecond)}
	err = c.forController(ctx, func(ctx context.Context, addr string) error {
		res, err := c.send(ctx, opCreateTopic, addr, req, answerTimeout)
		if err != nil {
			return err
		}
		for _, t := range res.(*createtopics.Response).Topics {
			if code := Code(t.ErrorCode); code != 0 && code != codeTopicExists {
				return answered(opCreateTopic, spec.Name, -1, code, t.ErrorMessage)
			} else if code == 0 {
				created = true
			}
		}
		return nil
	})
	return created, err
}

// Topic returns what a topic is like. If it does not exist the error is an
// ErrNoTopic.
func (c *Client) Topic(ctx context.Context, name string) (TopicInfo, error) {
	return c.topicNow(ctx, name)
}

// topicNow asks about a topic until the answer is that it is there, with a
// leader for each partition, or that it is not.
func (c *Client) topicNow(ctx context.Context, name string) (info TopicInfo, err error) {
	err = c.retry(ctx, c.timeout, func(ctx context.Context) error {
		info, err = c.topicOnce(ctx, name)
		if errors.Is(err, ErrNoTopic) {
			return &Error{Op: "look for", Topic: name, Partition: -1, Err: ErrNoTopic, act: actStop, hint: "create the topic, or let it be created"}
		}
		return err
	})
	return info, err
}

func (c *Client) topicOnce(ctx context.Context, name string) (TopicInfo, error) {
	res, err := c.metadata(ctx, []string{name})
	if err != nil {
		return TopicInfo{}, err
	}
	if len(res.Topics) != 1 {
		return TopicInfo{}, answered(opMetadata, name, -1, codeUnknownTopic, "")
	}
	t := &res.Topics[0]
	if code := Code(t.ErrorCode); code != 0 {
		return TopicInfo{}, answered(opMetadata, name, -1, code, "")
	}
	if p := slices.IndexFunc(t.Partitions, func(p metadata.ResponsePartition) bool { return p.LeaderID < 0 }); p >= 0 {
		return TopicInfo{}, answered(opMetadata, name, t.Partitions[p].PartitionIndex, codeLeaderNotAvailable, "")
	}
	return topicInfo(t), nil
}

func topicInfo(t *metadata.ResponseTopic) TopicInfo {
	info := TopicInfo{Name: t.Name, Partitions: int32(len(t.Partitions)), Internal: t.IsInternal}
	if len(t.Partitions) > 0 {
		info.Replication = int16(len(t.Partitions[0].ReplicaNodes))
	}
	return info
}

// Topics returns all topics that we may see, by name.
func (c *Client) Topics(ctx context.Context) (topics []TopicInfo, err error) {
	err = c.retry(ctx, c.timeout, func(ctx context.Context) error {
		res, err := c.metadata(ctx, nil)
		if err != nil {
			return err
		}
		topics = topics[:0]
		for i := range res.Topics {
			if res.Topics[i].ErrorCode == 0 {
				topics = append(topics, topicInfo(&res.Topics[i]))
			}
		}
		return nil
	})
	return topics, err
}

// DeleteTopic deletes a topic. One that is not there is no error.
func (c *Client) DeleteTopic(ctx context.Context, name string) error {
	req := &deletetopics.Request{TopicNames: []string{name}, TimeoutMs: int32(brokerTimeout / time.Millisecond)}
	return c.forController(ctx, func(ctx context.Context, addr string) error {
		res, err := c.send(ctx, opDeleteTopic, addr, req, answerTimeout)
		if err != nil {
			return err
		}
		c.stale(name)
		for _, t := range res.(*deletetopics.Response).Responses {
			if code := Code(t.ErrorCode); code != 0 && code != codeUnknownTopic {
				return answered(opDeleteTopic, name, -1, code, "")
			}
		}
		return nil
	})
}
