//go:build failpoint

package sinks

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// This build kills itself where a bench asks for it:
//
//	TAILRACE_FAILPOINT=name:k   SIGKILL at the k-th passage of the failpoint
var failName, failLeft = parseFailpoint(os.Getenv("TAILRACE_FAILPOINT"))

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

// Failpoint kills the process when the environment names it.
func Failpoint(name string) {
	if name == failName && failLeft.Add(-1) == 0 {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
