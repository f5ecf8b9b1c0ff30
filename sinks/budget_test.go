package sinks

import (
	"context"
	"testing"
	"testing/synctest"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{limit: 10, freed: make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		if !b.take(ctx, 25) { // alone, it may be larger
			t.Fatal("nothing fits into an empty queue")
		}
		took := make(chan bool)
		for range 2 {
			go func() { took <- b.take(ctx, 6) }()
			synctest.Wait()
			select {
			case <-took:
				t.Fatal("more than the limit waits")
			default:
			}
			b.give(b.used)
			if !<-took {
				t.Fatal("what fits was refused")
			}
		}
		go func() { took <- b.take(ctx, 5) }()
		synctest.Wait()
		cancel()
		if <-took {
			t.Fatal("the end of the context was taken for room")
		}
	})
}
