package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Access says who may ask a server. The zero Access is for loopback, where nobody is asked.
type Access struct {
	Certificate *Certificate // with which it speaks TLS; nil: plain HTTP
	// Token, or User and Password, must come with a request: as "Authorization: Bearer", or as
	// Basic. Empty: nobody is asked.
	Token          string
	User, Password string
	Hosts          []string // that the Host header may name, beside loopback names and Address'
	Address        string   // host:port that is listened on
}

// asks says whether requests must say who they are from.
func (a *Access) asks() bool { return a.Token != "" || a.Password != "" }

// Guarded says whether other machines may reach the server.
func (a *Access) Guarded() bool { return a.Certificate != nil && a.asks() }

// Guard lets only those requests through to next that name a host of the server, and that say
// who they are from. Paths in open need not say so; Known tells whether they did.
func (a *Access) Guard(next http.Handler, open ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !a.host(r.Host):
			answer(w, http.StatusMisdirectedRequest, map[string]string{"error": "the Host header names no host of this server"})
		case !a.Known(r) && !slices.Contains(open, r.URL.Path):
			scheme := "Bearer"
			if a.Token == "" {
				scheme = `Basic realm="tailrace", charset="UTF-8"`
			}
			w.Header().Set("WWW-Authenticate", scheme)
			answer(w, http.StatusUnauthorized, map[string]string{"error": "say who you are: see the configuration of the server"})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// Known says whether a request is from somebody who may ask for everything. It takes as long for
// a wrong word as for the right one.
func (a *Access) Known(r *http.Request) bool {
	switch {
	case !a.asks():
		return true
	case a.Token != "":
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		return same(given, a.Token) && ok
	}
	user, password, ok := r.BasicAuth()
	return same(user, a.User) && same(password, a.Password) && ok
}

func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// host says whether a Host header names the server: a name of loopback, one of Hosts, or the
// address that is listened on. Any other may be a name that somebody's page has pointed here
// (DNS rebinding).
func (a *Access) host(header string) bool {
	name := header
	if h, _, err := net.SplitHostPort(header); err == nil {
		name = h
	} else if n := len(header); n > 2 && header[0] == '[' && header[n-1] == ']' {
		name = header[1 : n-1]
	}
	if loopback(name) {
		return true
	}
	own, _, _ := net.SplitHostPort(a.Address)
	ip := net.ParseIP(own)
	return own != "" && !ip.IsUnspecified() && strings.EqualFold(name, own) ||
		slices.ContainsFunc(a.Hosts, func(h string) bool { return strings.EqualFold(name, h) })
}

// loopback says whether a host is this machine's own.
func loopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

// Reach returns where a server that listens on an address is reached from the same machine.
func Reach(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
