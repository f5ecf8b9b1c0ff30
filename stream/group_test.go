package stream_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
)

// forEachCoordinator runs test against a cluster of three kfakes and Apache
// Kafka, both of which allow sessions of a second, one after the other.
func forEachCoordinator(t *testing.T, test func(t *testing.T, addr string)) {
	t.Run("cluster", func(t *testing.T) {
		noLeaks(t)
		_, addr := startCluster(t, kfake.NumBrokers(3), kfake.GroupMinSessionTimeout(100*time.Millisecond))
		test(t, addr)
	})
	t.Run("kafka", func(t *testing.T) {
		addr := testenv.SharedKafka(t)
		noLeaks(t)
		test(t, addr)
	})
}

func groupConfig(topics ...string) stream.GroupConfig {
	return stream.GroupConfig{
		Group: testenv.Unique("group"), Topics: topics, SessionTimeout: 5 * time.Second, RebalanceTimeout: 10 * time.Second, LookEvery: 200 * time.Millisecond,
	}
}

// A membership is a member of a group; each generation comes through a channel.
type membership struct {
	generations chan generation
	leave       context.CancelFunc
	left        chan error // RunGroup's result, once
}

type generation struct {
	*stream.Generation
	ctx context.Context
	end chan error // fn returns what is sent, or nil when the generation ends
}

func enter(t *testing.T, c *stream.Client, cfg stream.GroupConfig) *membership {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	m := &membership{generations: make(chan generation, 100), leave: cancel, left: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.left <- c.RunGroup(ctx, cfg, func(ctx context.Context, g *stream.Generation) error {
			end := make(chan error, 1)
			m.generations <- generation{g, ctx, end}
			select {
			case err := <-end:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return m
}

// next waits for a generation that has as many partitions as one of n.
func (m *membership) next(t *testing.T, n ...int) generation {
	t.Helper()
	for {
		select {
		case g := <-m.generations:
			if slices.Contains(n, len(g.Partitions())) {
				return g
			}
		case err := <-m.left:
			t.Fatalf("member left: %v", err)
		case <-time.After(30 * time.Second):
			t.Fatalf("no generation with %v partitions", n)
		}
	}
}

func (m *membership) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-m.left:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the member stays")
		return nil
	}
}

func ended(t *testing.T, ctx context.Context) {
	t.Helper()
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the generation does not end")
	}
}

func TestGroupShares(t *testing.T) {
	forEachCoordinator(t, func(t *testing.T, addr string) {
		c := newClient(t, addr)
		cfg := groupConfig(newTopic(t, c, 3, nil), newTopic(t, c, 2, nil))
		cfg.SessionTimeout = 8 * time.Second
		a := enter(t, c, cfg)
		g := a.next(t, 5)
		if none, err := g.Committed(testContext(t)); err != nil || len(none) > 0 {
			t.Errorf("nothing was committed, but %v, %v", none, err)
		}
		offsets := make(map[stream.Partition]int64)
		for i, p := range g.Partitions() {
			offsets[p] = int64(10 + i)
		}
		if err := g.Commit(testContext(t), offsets); err != nil {
			t.Fatal(err)
		}
		b := enter(t, newClient(t, addr), cfg)
		ended(t, g.ctx)
		if !errors.Is(context.Cause(g.ctx), stream.ErrGeneration) {
			t.Errorf("the generation ended because %v", context.Cause(g.ctx))
		}
		ga, gb := a.next(t, 2, 3), b.next(t, 2, 3)
		if ga.Number() != gb.Number() || ga.Number() <= g.Number() || ga.Member() == gb.Member() {
			t.Errorf("generation %d of %s and %d of %s after %d", ga.Number(), ga.Member(), gb.Number(), gb.Member(), g.Number())
		}
		got := make(map[stream.Partition]int64)
		for _, g := range []generation{ga, gb} {
			part, err := g.Committed(testContext(t))
			if err != nil || len(part) != len(g.Partitions()) {
				t.Errorf("committed: %v, %v", part, err)
			}
			for p, o := range part {
				got[p] = o
			}
		}
		if !maps.Equal(got, offsets) {
			t.Errorf("committed %v, want %v", got, offsets)
		}
		b.leave()
		if err := b.wait(t); err != nil {
			t.Errorf("leaving: %v", err)
		}
		begin := time.Now()
		a.next(t, 5)
		if took := time.Since(begin); took >= cfg.SessionTimeout {
			t.Errorf("the other member took over after %v: leaving was not said", took)
		}
	})
}

func TestGroupSingle(t *testing.T) {
	forEachCoordinator(t, func(t *testing.T, addr string) {
		c := newClient(t, addr)
		cfg := groupConfig(newTopic(t, c, 3, nil))
		cfg.Single = true
		a := enter(t, c, cfg)
		a.next(t, 3)
		var others []*membership
		for range 2 {
			b := enter(t, newClient(t, addr), cfg)
			b.next(t, 0)
			a.next(t, 3) // whatever the names of the others, it keeps what it had
			others = append(others, b)
		}
		a.leave()
		found := make(chan *membership, 3)
		for _, b := range others {
			go func() {
				for g := range b.generations {
					if len(g.Partitions()) == 3 {
						found <- b
						return
					}
				}
			}()
		}
		owner := <-found
		for _, b := range others {
			b.leave()
			if err := b.wait(t); err != nil {
				t.Error(err)
			}
			if b != owner {
				close(b.generations)
			}
		}
	})
}

// TestGroupFrozen cuts a member off for longer than its session: its
// generation must end by its own clock, another gets its partitions, and what
// it commits late is refused.
func TestGroupFrozen(t *testing.T) {
	forEachCoordinator(t, func(t *testing.T, addr string) {
		frozen := newClientOf(t, stream.Config{Brokers: []string{addr}, Timeout: 20 * time.Second})
		var cut atomic.Bool
		frozen.WrapConnections(func(nc net.Conn) net.Conn { return &cutConn{nc, &cut} })
		c := newClient(t, addr)
		cfg := groupConfig(newTopic(t, c, 2, nil))
		cfg.SessionTimeout = 2 * time.Second
		a := enter(t, frozen, cfg)
		old := a.next(t, 2)
		p := old.Partitions()[0]
		if err := old.Commit(testContext(t), map[stream.Partition]int64{p: 7}); err != nil {
			t.Fatal(err)
		}
		b := enter(t, c, cfg)
		ended(t, old.ctx)
		old = a.next(t, 1)
		cut.Store(true)
		ended(t, old.ctx)
		now := b.next(t, 2)
		if err := now.Commit(testContext(t), map[stream.Partition]int64{p: 20}); err != nil {
			t.Fatal(err)
		}
		cut.Store(false)
		p = old.Partitions()[0]
		if err := old.Commit(testContext(t), map[stream.Partition]int64{p: 8}); !errors.Is(err, stream.ErrGeneration) {
			t.Errorf("a late commit: %v", err)
		}
		b.next(t, 1) // the frozen one is back
		a.next(t, 1)
	})
}

// cutConn fails while cut is set.
type cutConn struct {
	net.Conn
	cut *atomic.Bool
}

var errCut = errors.New("the connection is cut")

func (c *cutConn) Write(b []byte) (int, error) {
	if c.cut.Load() {
		return 0, errCut
	}
	return c.Conn.Write(b)
}

func TestGroupNoticesNewTopics(t *testing.T) {
	forEachCoordinator(t, func(t *testing.T, addr string) {
		c := newClient(t, addr)
		later := testenv.Unique("later")
		cfg := groupConfig(newTopic(t, c, 1, nil), later)
		a := enter(t, c, cfg)
		a.next(t, 1)
		if _, err := c.EnsureTopic(testContext(t), stream.TopicSpec{Name: later, Partitions: 4, Replication: 1, Create: true}); err != nil {
			t.Fatal(err)
		}
		if g := a.next(t, 5); !slices.Contains(g.Partitions(), stream.Partition{Topic: later, Number: 3}) {
			t.Errorf("partitions are %v", g.Partitions())
		}
	})
}

func TestGroupEndsWithItsFunction(t *testing.T) {
	forEachCoordinator(t, func(t *testing.T, addr string) {
		c := newClient(t, addr)
		cfg := groupConfig(newTopic(t, c, 2, nil))
		a, b := enter(t, c, cfg), enter(t, newClient(t, addr), cfg)
		g := a.next(t, 1)
		b.next(t, 1)
		want := errors.New("enough")
		g.end <- want
		if err := a.wait(t); !errors.Is(err, want) {
			t.Errorf("the group ended with %v", err)
		}
		b.next(t, 2).end <- nil
		if err := b.wait(t); err != nil {
			t.Errorf("the group ended with %v", err)
		}
	})
}

func TestGroupRefusals(t *testing.T) {
	forEachCoordinator(t, func(t *testing.T, addr string) {
		c := newClient(t, addr)
		cfg := groupConfig(newTopic(t, c, 2, nil))
		enter(t, c, cfg).next(t, 2)
		other := cfg
		other.Single = true
		err := enter(t, c, other).wait(t)
		wantError(t, err, err, true, "same settings")
		other.Group, other.SessionTimeout = testenv.Unique("other"), time.Hour
		err = enter(t, c, other).wait(t)
		wantError(t, err, err, true, "group.max.session.timeout.ms")
		if err := c.RunGroup(testContext(t), stream.GroupConfig{Group: "g"}, nil); err == nil {
			t.Error("a group of no topics was joined")
		}
	})
}

// TestGroupOnEmbedded: the embedded broker knows groups too.
func TestGroupOnEmbedded(t *testing.T) {
	noLeaks(t)
	c := newClient(t, startEmbedded(t, t.TempDir(), "127.0.0.1:0").Addr())
	cfg := groupConfig(newTopic(t, c, 2, nil))
	cfg.SessionTimeout = 6 * time.Second
	a := enter(t, c, cfg)
	g := a.next(t, 2)
	p := g.Partitions()[1]
	if err := g.Commit(testContext(t), map[stream.Partition]int64{p: 3}); err != nil {
		t.Fatal(err)
	}
	b := enter(t, c, cfg)
	ended(t, g.ctx)
	a.next(t, 1)
	b.next(t, 1)
	a.leave()
	if committed, err := b.next(t, 2).Committed(testContext(t)); err != nil || committed[p] != 3 || len(committed) != 1 {
		t.Errorf("committed: %v, %v", committed, err)
	}
}

func TestOffsetAt(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		topic := newTopic(t, c, 1, nil)
		p := newProducer(t, c, stream.ProducerConfig{})
		begin := time.UnixMilli(1_700_000_000_000)
		for i := range 3 {
			var batch stream.Batch
			if err := batch.Append(begin.UnixMilli()+int64(1000*i), []byte("k"), []byte("v"), nil); err != nil {
				t.Fatal(err)
			}
			if err := batch.Seal(stream.None, false); err != nil {
				t.Fatal(err)
			}
			produce(t, p, &stream.Outgoing{Topic: topic, Batch: &batch})
		}
		for after, want := range map[time.Duration]int64{-time.Hour: 0, 0: 0, 500 * time.Millisecond: 1, 2 * time.Second: 2, time.Hour: 3} {
			if got, err := c.OffsetAt(testContext(t), topic, 0, begin.Add(after)); err != nil || got != want {
				t.Errorf("offset %v after the beginning is %d, %v, want %d", after, got, err, want)
			}
		}
	})
}

func TestTopicConfig(t *testing.T) {
	forEachBroker(t, func(t *testing.T, b broker) {
		c := newClient(t, b.addr)
		for policy, config := range map[string]map[string]string{"compact": {"cleanup.policy": "compact"}, "delete": nil} {
			topic := newTopic(t, c, 1, config)
			if got, err := c.TopicConfig(testContext(t), topic, "cleanup.policy"); err != nil || got != policy {
				t.Errorf("cleanup.policy is %q, %v, want %q", got, err, policy)
			}
		}
	})
}
