// Package samples holds integrations that run as they are: each folder has a configuration,
// the SQL of its databases, and a README. The tests here start each of them and compare the
// target with what it must be.
package samples
