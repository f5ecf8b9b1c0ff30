// Package httpapi is the HTTP server of a running process: metrics, health and status.
// It listens on loopback only and answers only requests that name a loopback host, so
// that a page in somebody's browser cannot reach it through a name of its own (DNS
// rebinding). Every answer is a GET without effects.
package httpapi
