package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Proto != "HTTP/2.0" {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
		}
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes
	server.StartTLS()
	t.Cleanup(server.Close)
	known := x509.NewCertPool()
	known.AddCert(server.Certificate())
	for _, c := range []struct {
		name, url string
		roots     *x509.CertPool
		allow     string
		want      string
	}{
		{"known authority", server.URL, known, "127.0.0.1/32", ""},
		{"unknown authority", server.URL, nil, "127.0.0.1/32", "an authority that is not trusted"},
		{"not allowed", server.URL, known, "10.0.0.0/8", "127.0.0.1 is loopback"},
		{"plain HTTP to a TLS server", strings.Replace(server.URL, "https", "http", 1), known, "127.0.0.1/32", "400 Bad Request"},
	} {
		cfg := Config{URL: "https://api.example/", Allow: []string{c.allow}, Concurrency: 1, Timeout: time.Minute, TLS: &tls.Config{RootCAs: c.roots}}
		to, problems := cfg.compile()
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		_, base, err := parseURL(c.url)
		if err != nil {
			t.Fatal(err)
		}
		client := newClient(&cfg, to, to.guard.dialer())
		err = client.attempt(t.Context(), &request{url: base, body: []byte("{}")})
		client.close()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
