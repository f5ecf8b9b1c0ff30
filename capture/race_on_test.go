//go:build race

package capture

// simSeeds is lower under the race detector, which makes the simulation ten times slower.
const simSeeds = 500
