package httpapi

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailrace/tailrace/deploy/testenv"
)

const token = "correct horse battery"

func TestToken(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := New(func() Status { return Status{Ready: false, Causes: []string{"the reason why"}} }, reg, &Access{Token: token})
	for _, c := range []struct {
		path, header string
		code         int
		causes       bool
	}{
		{"/status", "Bearer " + token, 200, true},
		{"/metrics", "Bearer " + token, 200, false},
		{"/readyz", "Bearer " + token, 503, true},
		{"/status", "", 401, false},
		{"/status", "Bearer ", 401, false},
		{"/status", "Bearer " + token + "x", 401, false},
		{"/status", "bearer" + token, 401, false},
		{"/status", token, 401, false},
		{"/status", "Basic " + token, 401, false},
		{"/metrics", "", 401, false},
		{"/nothing", "", 401, false},
		{"/livez", "", 200, false},
		{"/readyz", "", 503, false},
		{"/readyz", "Bearer wrong", 503, false},
		{"/status?token=" + strings.ReplaceAll(token, " ", "+"), "", 401, false},
	} {
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Host = "127.0.0.1:9090"
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.code || strings.Contains(w.Body.String(), "the reason why") != c.causes {
			t.Errorf("%s with %q: %d %s", c.path, c.header, w.Code, w.Body)
		}
		if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") == "Bearer") {
			t.Errorf("%s with %q: %v", c.path, c.header, w.Header())
		}
	}
}

func TestBasic(t *testing.T) {
	h := (&Access{User: "ann", Password: token}).Guard(http.NotFoundHandler())
	for name, c := range map[string]struct {
		user, password string
		code           int
	}{"right": {"ann", token, 404}, "wrong password": {"ann", "x", 401}, "wrong user": {"bob", token, 401}, "none": {"", "", 401}} {
		r := httptest.NewRequest(http.MethodGet, "/subjects", nil)
		r.Host = "localhost"
		if c.user != "" {
			r.SetBasicAuth(c.user, c.password)
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != c.code {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

// Names beside loopback's must be listed, or be the address that is listened on.
func TestMoreHosts(t *testing.T) {
	for _, c := range []struct {
		access Access
		host   string
		code   int
	}{
		{Access{Hosts: []string{"tail.example"}}, "tail.example:9090", 200},
		{Access{Hosts: []string{"tail.example"}}, "TAIL.example", 200},
		{Access{Hosts: []string{"tail.example"}}, "evil.tail.example", 421},
		{Access{Hosts: []string{"10.1.2.3"}}, "10.1.2.3:9090", 200},
		{Access{Address: "10.1.2.3:9090"}, "10.1.2.3:9090", 200},
		{Access{Address: "10.1.2.3:9090"}, "10.1.2.4:9090", 421},
		{Access{Address: "0.0.0.0:9090"}, "0.0.0.0:9090", 421},
		{Access{Address: "0.0.0.0:9090"}, "", 421},
		{Access{Address: ":9090"}, "", 421},
		{Access{Address: "[::]:9090"}, "[::]:9090", 421},
	} {
		h := New(func() Status { return Status{} }, prometheus.NewRegistry(), &c.access)
		if w := get(h, "GET", c.host, "/livez"); w.Code != c.code {
			t.Errorf("%+v, %q: got %d, want %d", c.access, c.host, w.Code, c.code)
		}
	}
}

// Only with a certificate and a word to be said does it listen elsewhere than on loopback;
// there it speaks TLS 1.2 or later, and takes up a renewed certificate.
func TestListenElsewhere(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := testenv.WriteCertificate(t, dir, "first.example")
	var said bytes.Buffer
	certificate, err := LoadCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*Access{{}, {Token: token}, {Certificate: certificate}, {Certificate: certificate, User: "ann"}} {
		a.Address = "0.0.0.0:0"
		if l, err := Listen(t.Context(), "tests", a); err == nil {
			_ = l.Close()
			t.Errorf("%+v: listens", a)
		}
	}
	access := &Access{Address: "0.0.0.0:0", Certificate: certificate, Token: token}
	l, err := Listen(t.Context(), "tests", access)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = Serve(t.Context(), l, New(func() Status { return Status{} }, prometheus.NewRegistry(), access))
	}()
	address := Reach(l.Addr().String())
	pinned, err := PinTo(certFile)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(url string, settings *tls.Config) (int, string) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings}}
		defer client.CloseIdleConnections()
		resp, err := client.Get(url + address + "/livez")
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if code, body := ask("https://", pinned); code != 200 {
		t.Errorf("with its certificate: %d %s", code, body)
	}
	if code, body := ask("http://", nil); code == 200 {
		t.Errorf("without TLS: %d %s", code, body)
	}
	if code, body := ask("https://", &tls.Config{}); code != 0 || !strings.Contains(body, "certificate") {
		t.Errorf("without its certificate: %d %s", code, body)
	}
	old := pinned.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if code, body := ask("https://", old); code != 0 || !strings.Contains(body, "version") {
		t.Errorf("with TLS 1.1: %d %s", code, body)
	}

	later := func() { // the files are looked at again
		certificate.mu.Lock()
		certificate.looked, certificate.stamps = time.Time{}, [2]time.Time{}
		certificate.mu.Unlock()
	}
	if err := os.WriteFile(keyFile, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	later()
	if code, body := ask("https://", pinned); code != 200 || !strings.Contains(said.String(), "the one before it stays") {
		t.Errorf("with a broken key file: %d %s; said %s", code, body, said.String())
	}
	testenv.WriteCertificate(t, dir, "second.example")
	if code, body := ask("https://", pinned); code != 0 || !strings.Contains(body, "another certificate") {
		t.Errorf("before it looks: %d %s", code, body)
	}
	later()
	if code, body := ask("https://", pinned); code != 200 {
		t.Errorf("after the renewal: %d %s", code, body)
	}
}

func TestReach(t *testing.T) {
	for address, want := range map[string]string{"0.0.0.0:1": "127.0.0.1:1", "[::]:1": "[::1]:1", ":1": "127.0.0.1:1", "127.0.0.2:1": "127.0.0.2:1", "x.example:1": "x.example:1"} {
		if got := Reach(address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
