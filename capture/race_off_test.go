//go:build !race

package capture

const simSeeds = 10_000
