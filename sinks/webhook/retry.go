package webhook

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Pauses between attempts: each is drawn from the upper half of what doubles from first to
// most. What the target asks for by Retry-After is waited for, up to longest.
const (
	pauseFirst   = 100 * time.Millisecond
	pauseMost    = 30 * time.Second
	pauseLongest = 5 * time.Minute
)

// patience is for how long a request is tried again before the run ends with an error. It is
// started anew then, which shows that something is wrong.
const patience = 2 * time.Minute

// pause returns how long to wait after the n-th failed attempt, from 1.
func pause(n int) time.Duration {
	full := pauseMost
	if n < 10 {
		full = min(pauseFirst<<(n-1), pauseMost)
	}
	return full/2 + rand.N(full/2)
}

// retryAfter returns what an answer asks for: seconds, or a date. Anything else is nothing.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, pauseLongest)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), pauseLongest)
}

// sleep waits; it returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
