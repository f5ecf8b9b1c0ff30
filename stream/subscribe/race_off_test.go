//go:build !race

package subscribe_test

const raceDetector = false
