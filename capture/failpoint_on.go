//go:build failpoint

package capture

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// This build kills itself where deploy/bench/kill asks for it, and has the faults that the
// bench must catch:
//
//	TAILRACE_FAILPOINT=name:k   SIGKILL at the k-th passage of the failpoint
//	TAILRACE_MUTANT=name        the fault of that name is on
var (
	failName, failLeft = parseFailpoint(os.Getenv("TAILRACE_FAILPOINT"))
	mutantName         = os.Getenv("TAILRACE_MUTANT")
)

func parseFailpoint(text string) (string, *atomic.Int64) {
	name, count, _ := strings.Cut(text, ":")
	k, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		k = 1
	}
	left := new(atomic.Int64)
	left.Store(k)
	return name, left
}

func failpoint(name string) {
	if name == failName && failLeft.Add(-1) == 0 {
		die()
	}
}

// failSoon kills within the next three milliseconds, while what follows is under way.
func failSoon(name string) {
	if name == failName && failLeft.Add(-1) == 0 {
		go func() {
			time.Sleep(time.Duration(rand.Int64N(3_000_000)))
			die()
		}()
	}
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func mutant(name string) bool { return name == mutantName }
