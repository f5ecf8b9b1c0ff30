// Package product builds the tailrace command and runs it as a child process, as an
// operator would: a configuration file, environment variables, HTTP for its health.
package product
