package app

import (
	"context"
	"slices"
	"strings"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
)

// reload takes up configurations that were read again, until ctx ends.
func (a *app) reload(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-a.opts.Reload:
			a.takeUp(next)
		}
	}
}

// takeUp takes up the tables of captures, and says of every other difference that it needs a
// restart. Parts that have stopped are started again: what stopped them may be mended.
func (a *app) takeUp(next *config.Config) {
	log, changed := a.opts.Log, false
	for _, p := range a.captures {
		i := slices.IndexFunc(next.Captures, func(c config.Capture) bool { return c.Name == p.cfg.Name })
		if i < 0 {
			continue
		}
		was, now := *p.tables.Load(), next.Captures[i].Postgres.Tables
		if slices.Equal(was, now) {
			continue
		}
		changed = true
		log.Info("the tables of a capture have changed", "capture", p.cfg.Name, "were", was, "are", now)
		p.tables.Store(&now)
		select {
		case p.look <- struct{}{}:
		default: // it is going to look already
		}
	}
	for _, path := range config.Differences(a.cfg, next) {
		if !strings.HasPrefix(path, "captures.") || !strings.HasSuffix(path, ".postgres.tables") {
			changed = true
			log.Warn("a change of the configuration needs a restart", "path", path)
		}
	}
	if !changed {
		log.Info("the configuration was read again: nothing has changed")
	}
	a.resting.wake("")
}
