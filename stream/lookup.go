package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go/protocol/describeconfigs"
)

const opTopicConfig = "read settings of"

// OffsetAt returns the offset of the first record whose timestamp is not
// before t; the partition's end if there is none.
func (c *Client) OffsetAt(ctx context.Context, topic string, partition int32, t time.Time) (int64, error) {
	// Negative numbers ask for something else.
	offset, err := c.listOffset(ctx, topic, partition, max(t.UnixMilli(), 0), false)
	if err != nil || offset >= 0 {
		return offset, err
	}
	const latest = -1
	return c.listOffset(ctx, topic, partition, latest, true)
}

// TopicConfig returns the value of one of a topic's settings, such as
// cleanup.policy, be it the topic's own or the broker's default; "" if the
// broker does not know it.
func (c *Client) TopicConfig(ctx context.Context, topic, name string) (string, error) {
	const resourceTopic = 2
	req := &describeconfigs.Request{Resources: []describeconfigs.RequestResource{{
		ResourceType: resourceTopic, ResourceName: topic, ConfigNames: []string{name},
	}}}
	value := ""
	err := c.forController(ctx, func(ctx context.Context, addr string) error {
		res, err := c.send(ctx, opTopicConfig, addr, req, answerTimeout)
		if err != nil {
			return err
		}
		for _, r := range res.(*describeconfigs.Response).Resources {
			if r.ErrorCode != 0 {
				e := answered(opTopicConfig, topic, -1, Code(r.ErrorCode), r.ErrorMessage)
				if e.Code == codeTopicNotAuthorized {
					e.hint = fmt.Sprintf("give the user the ACL DESCRIBE_CONFIGS on the topic %s: "+
						"kafka-acls.sh --add --allow-principal User:NAME --operation DescribeConfigs --topic %s", topic, topic)
				}
				return e
			}
			for _, entry := range r.ConfigEntries {
				if entry.ConfigName == name {
					value = entry.ConfigValue
				}
			}
		}
		return nil
	})
	return value, err
}
