package subscribe

import (
	"slices"
	"strings"
)

// isCompacted says whether a cleanup.policy has a topic compacted.
func isCompacted(policy string) bool {
	return slices.ContainsFunc(strings.Split(policy, ","), func(s string) bool { return strings.TrimSpace(s) == "compact" })
}
