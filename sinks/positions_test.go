package sinks

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tailrace/tailrace/deploy/testenv"
	"github.com/tailrace/tailrace/stream"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// shelf is where the positions of a test are.
type shelf struct {
	*stream.Client
	sink string
}

func (s shelf) positions() *Positions { return NewPositions(s.Client, s.sink) }

// onBrokers runs a test on a broker in memory, and on Apache Kafka.
func onBrokers(t *testing.T, test func(*testing.T, shelf)) {
	for _, name := range []string{"embedded", "kafka"} {
		t.Run(name, func(t *testing.T) { test(t, shelfOn(t, name)) })
	}
}

func shelfOn(t *testing.T, broker string) shelf {
	t.Helper()
	var addr string
	if broker == "kafka" {
		addr = testenv.SharedKafka(t)
	} else {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cluster.Close)
		addr = cluster.ListenAddrs()[0]
	}
	client, err := stream.NewClient(stream.Config{Brokers: []string{addr}, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return shelf{client, testenv.Unique("hook")}
}

func at(offset int64) Position {
	return Position{Offset: offset, Place: Place{Epoch: 1, File: 2, Pos: 1 << 63, Row: 3}, N: uint64(offset)}
}

var p0, p1 = Partition{Topic: "shop.public.orders", Number: 0}, Partition{Topic: "shop.public.orders", Number: 1}

// taken makes positions that own partitions, and checks what they found.
func taken(t *testing.T, c shelf, want map[Partition]Position, ps ...Partition) *Positions {
	t.Helper()
	s := c.positions()
	got, err := s.Take(t.Context(), ps)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("took %+v, want %+v", got, want)
	}
	return s
}

func write(t *testing.T, s *Positions, p Partition, offset int64) {
	t.Helper()
	if err := s.Write(t.Context(), map[Partition]Position{p: at(offset)}); err != nil {
		t.Fatal(err)
	}
}

func TestPositionsSurviveTheirOwner(t *testing.T) {
	onBrokers(t, func(t *testing.T, c shelf) {
		first := taken(t, c, map[Partition]Position{}, p0, p1)
		write(t, first, p0, 5)
		write(t, first, p1, 7)
		write(t, first, p0, 9)
		second := taken(t, c, map[Partition]Position{p0: at(9), p1: at(7)}, p0, p1)
		again, err := second.Take(t.Context(), []Partition{p0, p1}) // nothing was written in between
		if err != nil || !maps.Equal(again, map[Partition]Position{p0: at(9), p1: at(7)}) {
			t.Fatalf("took %+v again, %v", again, err)
		}
		state, err := c.LoadState(t.Context(), PositionsTopic(c.sink))
		if err != nil || len(state) != 2 {
			t.Errorf("the topic holds %d keys, %v; want one for each partition", len(state), err)
		}
	})
}

// Members that share the partitions do not disturb each other.
func TestPositionsOfTwoMembers(t *testing.T) {
	onBrokers(t, func(t *testing.T, c shelf) {
		one := taken(t, c, map[Partition]Position{}, p0)
		two := taken(t, c, map[Partition]Position{}, p1)
		for n := range int64(10) {
			write(t, one, p0, n+1)
			write(t, two, p1, n+101)
		}
		taken(t, c, map[Partition]Position{p0: at(10), p1: at(110)}, p0, p1)
	})
}

// Who was replaced is told so with its next position, and what it writes counts for
// nothing, though it is the last record.
func TestPositionsFence(t *testing.T) {
	onBrokers(t, func(t *testing.T, c shelf) {
		zombie := taken(t, c, map[Partition]Position{}, p0, p1)
		write(t, zombie, p0, 5)
		owner := taken(t, c, map[Partition]Position{p0: at(5)}, p0)
		write(t, owner, p0, 6)
		for range 2 {
			if err := zombie.Write(t.Context(), map[Partition]Position{p0: at(50)}); !errors.Is(err, ErrFenced) {
				t.Fatalf("a zombie's write says %v", err)
			}
		}
		write(t, zombie, p1, 8) // that one it still has
		write(t, owner, p0, 7)
		if err := zombie.Write(t.Context(), map[Partition]Position{p0: at(51)}); !errors.Is(err, ErrFenced) {
			t.Fatalf("a zombie's write says %v", err)
		}
		taken(t, c, map[Partition]Position{p0: at(7), p1: at(8)}, p0, p1)
	})
}

// The same if the owner has written no position yet.
func TestPositionsFenceAtTheBeginning(t *testing.T) {
	onBrokers(t, func(t *testing.T, c shelf) {
		zombie := taken(t, c, map[Partition]Position{}, p0)
		taken(t, c, map[Partition]Position{}, p0)
		if err := zombie.Write(t.Context(), map[Partition]Position{p0: at(50)}); !errors.Is(err, ErrFenced) {
			t.Fatalf("a zombie's write says %v", err)
		}
		taken(t, c, map[Partition]Position{}, p0)
	})
}

// A successor that dies between its claim and its first position loses none.
func TestPositionsClaimWithoutPosition(t *testing.T) {
	onBrokers(t, func(t *testing.T, c shelf) {
		first := taken(t, c, map[Partition]Position{}, p0)
		write(t, first, p0, 5)
		dead := c.positions()
		if err := dead.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := dead.claim(t.Context(), []Partition{p0}); err != nil {
			t.Fatal(err)
		}
		taken(t, c, map[Partition]Position{p0: at(5)}, p0)
	})
}

// Of two that claim at the same time one is the owner.
func TestPositionsRace(t *testing.T) {
	onBrokers(t, func(t *testing.T, c shelf) {
		write(t, taken(t, c, map[Partition]Position{}, p0), p0, 5)
		a, b := c.positions(), c.positions()
		for _, s := range []*Positions{a, b} {
			if err := s.open(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ps := []Partition{p0}
		for _, s := range []*Positions{a, b} { // b does not know of a's claim when it writes its own
			if err := s.claim(t.Context(), ps); err != nil {
				t.Fatal(err)
			}
		}
		if !a.owns(ps) || b.owns(ps) {
			t.Fatalf("a owns: %t, b owns: %t", a.owns(ps), b.owns(ps))
		}
		got, err := b.Take(t.Context(), ps)
		if err != nil || got[p0] != at(5) {
			t.Fatalf("b took %+v, %v", got, err)
		}
		if err := a.Write(t.Context(), map[Partition]Position{p0: at(6)}); !errors.Is(err, ErrFenced) {
			t.Fatalf("a's write says %v", err)
		}
	})
}

// Whatever else stands in the topic ends the sink: a position that is not understood must
// not be passed over.
func TestPositionsForeign(t *testing.T) {
	for _, r := range [][2]string{{"position/t/0/o", `{"fence":1,"more":2}`}, {"position/t/0/o", `x`}, {"position/t/x/o", `{"fence":1}`}, {"other", `{"fence":1}`}} {
		c := shelfOn(t, "embedded")
		s := taken(t, c, map[Partition]Position{}, p0)
		if err := s.batch.Append(1, []byte(r[0]), []byte(r[1]), nil); err != nil {
			t.Fatal(err)
		}
		if err := s.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := c.positions().Take(context.Background(), []Partition{p0})
		if !IsFatal(err) || HintOf(err) == "" {
			t.Errorf("%q: %v", r, err)
		}
	}
}
