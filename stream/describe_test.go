package stream

import (
	"bytes"
	"testing"
)

// An answer to DescribeTransactions as Kafka's protocol guide has it: version
// 0, flexible, one transaction with one topic of one partition.
var describeAnswer = []byte{
	0, 0, 0, 9, 0, // correlation id, tags of the header
	0, 0, 0, 0, // throttle time
	2, 0, 0, // one state; no error
	3, 'i', 'd',
	15, 'C', 'o', 'm', 'p', 'l', 'e', 't', 'e', 'C', 'o', 'm', 'm', 'i', 't',
	0, 0, 0xea, 0x60, // timeout
	0, 0, 0, 0, 0, 0, 0, 5, // start
	0, 0, 0, 0, 0, 0, 1, 2, // producer id
	0, 7, // epoch
	2, 2, 't', 2, 0, 0, 0, 0, 0, 0, 0, // topics
}

func TestDescribeTransaction(t *testing.T) {
	got := describeTransaction{"id"}.appendTo(nil, 9, "me")
	want := []byte{0, 65, 0, 0, 0, 0, 0, 9, 0, 2, 'm', 'e', 0, 2, 3, 'i', 'd', 0}
	if !bytes.Equal(got, want) {
		t.Errorf("request is % x, want % x", got, want)
	}
	id, res, err := describeTransaction{"id"}.answer(describeAnswer)
	if err != nil || id != 9 {
		t.Fatalf("answer: id %d, %v", id, err)
	}
	s := *res.(*transactionState)
	if s != (transactionState{state: "CompleteCommit", producerID: 258, producerEpoch: 7}) {
		t.Errorf("answer is %+v", s)
	}
	for n := range len(describeAnswer) - 12 { // its topics are not read
		if _, _, err := (describeTransaction{"id"}).answer(describeAnswer[:n]); err == nil {
			t.Errorf("an answer of %d bytes was taken", n)
		}
	}
}

func TestOutcomeOfATransaction(t *testing.T) {
	for _, c := range []struct {
		s             *transactionState
		commit, known bool
	}{
		{nil, false, false},
		{&transactionState{state: "CompleteCommit", producerID: 3}, true, true},
		{&transactionState{state: "PrepareCommit", producerID: 3}, true, true},
		{&transactionState{state: "CompleteAbort", producerID: 3}, false, true},
		{&transactionState{state: "PrepareAbort", producerID: 3}, false, true},
		{&transactionState{state: "PrepareEpochFence", producerID: 3}, false, false},
		{&transactionState{state: "Ongoing", producerID: 3}, false, false},
		{&transactionState{state: "Empty", producerID: 3}, false, false},
		{&transactionState{state: "CompleteCommit", producerID: 4}, true, false},
	} {
		commit, known := c.s.outcome(3)
		if known != c.known || known && commit != c.commit {
			t.Errorf("%+v: %v, %v", c.s, commit, known)
		}
	}
}

// How a transaction ended is known until another begins, though the coordinator has
// forgotten.
func TestEndsAreRemembered(t *testing.T) {
	committed := &transactionState{state: "CompleteCommit", producerID: 3, producerEpoch: 7}
	empty := func(epoch int16) *transactionState {
		return &transactionState{state: "Empty", producerID: 3, producerEpoch: epoch}
	}
	for name, c := range map[string]struct {
		do   func(e *ends)
		says *transactionState
		want bool
	}{
		"the answer to the init was lost":  {func(*ends) {}, empty(8), true},
		"inits were answered":              {func(e *ends) { e.follow("id", 8); e.look("id", empty(8)); e.follow("id", 9) }, empty(9), true},
		"an answer was lost later":         {func(e *ends) { e.follow("id", 8); e.look("id", empty(8)) }, empty(9), true},
		"one answer after the other":       {func(e *ends) { e.look("id", empty(8)) }, empty(9), true},
		"somebody was there later":         {func(e *ends) { e.follow("id", 8) }, empty(10), false},
		"another was there meanwhile":      {func(*ends) {}, empty(9), false},
		"of another id":                    {func(*ends) {}, &transactionState{state: "Empty", producerID: 4, producerEpoch: 8}, false},
		"a transaction has begun":          {func(e *ends) { e.forget("id"); e.follow("id", 8) }, empty(8), false},
		"another has a transaction":        {func(e *ends) { e.look("id", &transactionState{state: "Ongoing", producerID: 3, producerEpoch: 8}) }, empty(8), false},
		"the coordinator says how another": {func(*ends) {}, &transactionState{state: "CompleteAbort", producerID: 3, producerEpoch: 8}, false},
		"nothing is said":                  {func(*ends) {}, nil, false},
	} {
		var e ends
		if got := e.look("id", committed); got != committed {
			t.Fatalf("at first: %+v", got)
		}
		c.do(&e)
		got := e.look("id", c.says)
		if commit, _ := got.outcome(3); commit != c.want || !c.want && got != c.says {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
