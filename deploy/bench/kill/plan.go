package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// attempt is how one run of the capture is to end: at the k-th passage of a failpoint, or
// after a time.
type attempt struct {
	failpoint string
	k         int
	after     time.Duration // of random kills
}

// A failpoint is waited for so long before the capture is killed all the same. A sink may
// have to wait until its group on Apache Kafka has given up a dead member (ten seconds).
const (
	patience     = 10 * time.Second
	sinkPatience = 25 * time.Second
)

// wait is how long to wait for the end at most.
func (a *attempt) wait() time.Duration {
	switch {
	case a.failpoint == "":
		return a.after
	case slices.Contains(sinkFailpoints, a.failpoint):
		return sinkPatience
	}
	return patience
}

// plan draws attempts.
type plan struct {
	rng  *rand.Rand
	next int
	from []string // failpoints, used in turn
}

// draw draws the next attempt: every other one a failpoint. A third of the random kills
// come within the first 400 ms, when the capture starts and recovers.
func (p *plan) draw() attempt {
	p.next++
	if p.next%2 == 0 && len(p.from) > 0 {
		name := p.from[p.next/2%len(p.from)]
		k := 1 + p.rng.IntN(6)
		if name == "received" || name == "appended" {
			k = 1 + p.rng.IntN(800)
		}
		return attempt{failpoint: name, k: k}
	}
	if p.rng.IntN(3) == 0 {
		return attempt{after: time.Duration(p.rng.IntN(400)) * time.Millisecond}
	}
	return attempt{after: 400*time.Millisecond + time.Duration(p.rng.IntN(1800))*time.Millisecond}
}

// env is what the capture's process must find in its environment.
func (a *attempt) env() []string {
	if a.failpoint == "" {
		return nil
	}
	return []string{fmt.Sprintf("TAILRACE_FAILPOINT=%s:%d", a.failpoint, a.k)}
}
