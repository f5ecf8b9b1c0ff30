package stream

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestShareEvenly(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		topics := map[string]int32{"a": rnd.Int32N(9), "b": rnd.Int32N(3), "c": 1}
		members := make([]subscriber, 1+rnd.IntN(5))
		for i := range members {
			members[i] = subscriber{id: fmt.Sprint("m", i), topics: []string{"a", "b", "c"}}
		}
		shareEvenly(members, topics)
		var all []Partition
		least, most := 1<<30, 0
		for _, m := range members {
			all = append(all, m.partitions...)
			least, most = min(least, len(m.partitions)), max(most, len(m.partitions))
		}
		slices.SortFunc(all, comparePartitions)
		if !slices.Equal(all, sortedPartitions(topics)) {
			t.Fatalf("%v was shared as %v", topics, members)
		}
		if most-least > 1 {
			t.Errorf("%v was shared unevenly: %v", topics, members)
		}
	}
}

func TestShareByTopics(t *testing.T) {
	members := []subscriber{{id: "x", topics: []string{"a"}}, {id: "y", topics: []string{"a", "b"}}}
	shareEvenly(members, map[string]int32{"a": 1, "b": 2, "c": 5})
	if got := fmt.Sprint(members[0].partitions, members[1].partitions); got != "[{a 0}] [{b 0} {b 1}]" {
		t.Errorf("shared as %s", got)
	}
}

func TestShareSingle(t *testing.T) {
	members := []subscriber{{id: "x", topics: []string{"a"}}, {id: "y", topics: []string{"a"}, owned: 4}, {id: "z", topics: []string{"a"}, owned: 2}}
	shareSingle(members, map[string]int32{"a": 2})
	for _, m := range members {
		if want := map[string]int{"y": 2}[m.id]; len(m.partitions) != want {
			t.Errorf("%s has %v", m.id, m.partitions)
		}
	}
}

func FuzzGroupBytes(f *testing.F) {
	f.Add(appendSubscription(nil, []string{"a", "bc"}, 7))
	f.Add(appendAssignment(nil, []Partition{{"a", 0}, {"a", 2}, {"b", 1}}))
	f.Add([]byte{0, 0, 0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if partitions, err := parseAssignment(b); err == nil && len(partitions) > 0 {
			again, err := parseAssignment(appendAssignment(nil, partitions))
			if err != nil || !slices.Equal(again, partitions) {
				t.Errorf("%v became %v, %v", partitions, again, err)
			}
		}
		if topics, owned, err := parseSubscription(b); err == nil {
			out := appendSubscription(nil, topics, owned)
			if again, o, err := parseSubscription(out); err != nil || o != owned || !slices.Equal(again, topics) {
				t.Errorf("%v became %v, %v", topics, again, err)
			}
		}
	})
}
