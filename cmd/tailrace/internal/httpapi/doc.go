// Package httpapi is the HTTP server of a running process: metrics, health and status.
// It listens on loopback, unless it has TLS and asks who calls (Access). It answers only
// requests that name a host of its own, so that a page in somebody's browser cannot reach it
// through a name of that page's (DNS rebinding). Every answer is a GET without effects.
package httpapi
