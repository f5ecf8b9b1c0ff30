package capture

import (
	"math/rand/v2"
	"testing"
)

// A promoted standby, or a restored server, is the same log only up to where its timeline
// begins: what was read beyond that is not in it, however far it has come since.
func TestTimelines(t *testing.T) {
	run := func(t *testing.T, transactional bool, c *testCluster) (Config, *fakeLog) {
		log := newFakeLog()
		log.timeline = 1
		log.addRandom(rand.New(rand.NewPCG(21, 1)), 20)
		cfg := c.config(log, transactional)
		runUntil(t, cfg, log)
		return cfg, log
	}
	promote := func(log *fakeLog, at uint64) {
		log.timeline, log.forks = 2, []Fork{{Timeline: 1, At: Position{Offset: at}}}
		log.addRandom(rand.New(rand.NewPCG(21, 2)), 20)
	}
	modes(t, func(t *testing.T, transactional bool, c *testCluster) {
		cfg, log := run(t, transactional, c)
		promote(log, log.end().Offset)
		broken := 0
		log.failAt = func() bool { broken++; return broken == 10 || broken == 30 }
		runUntil(t, cfg, log) // nothing is missing: it goes on, through crashes too
		c.check(t, log)
		if s := loadTestState(t, c, &cfg); s.newest().Timeline != 2 {
			t.Errorf("the state says timeline %d", s.newest().Timeline)
		}
		promote(log, log.end().Offset-1)
		log.timeline, log.forks[0].Timeline = 3, 2
		stops(t, cfg, "left it at")
		log.forks = nil
		stops(t, cfg, "does not come from")
	})
	t.Run("a tail beyond it", func(t *testing.T) {
		c := newCluster(t)
		cfg, log := run(t, true, c)
		s := loadTestState(t, c, &cfg)
		before := log.txs[len(log.txs)-2].end
		for _, p := range s.positions {
			p.Position = before
		}
		tails, err := readTails(t.Context(), &cfg, s)
		if err != nil {
			t.Fatal(err)
		}
		info := LogInfo{Timeline: 2, Forks: []Fork{{Timeline: 1, At: before}}}
		if err := checkTimeline(s, nil, &info); err != nil {
			t.Fatal(err)
		}
		if err := checkTimeline(s, tails, &info); !IsFatal(err) {
			t.Fatalf("got %v", err)
		}
		info.Forks[0].At = log.end()
		if err := checkTimeline(s, tails, &info); err != nil {
			t.Fatal(err)
		}
	})
}
