package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/tailrace/tailrace/cmd/tailrace/internal/config"
	"github.com/tailrace/tailrace/cmd/tailrace/internal/httpapi"
	"github.com/tailrace/tailrace/schemas/registry"
)

// HTTPAccess returns who may ask the process, and how. It reads the certificate.
func HTTPAccess(h *config.HTTP, log *slog.Logger) (*httpapi.Access, error) {
	a := &httpapi.Access{Address: h.Listen, Token: h.Token.Reveal(), Hosts: h.Hosts}
	var err error
	a.Certificate, err = certificate("http.tls", h.TLS, log)
	return a, err
}

// RegistryAccess returns who may ask our own registry, and how. It reads the certificate.
func RegistryAccess(r *config.Registry, log *slog.Logger) (*httpapi.Access, error) {
	a := &httpapi.Access{Address: r.Serve, User: r.User, Password: r.Password.Reveal(), Hosts: r.Hosts}
	var err error
	a.Certificate, err = certificate("registry.tls", r.TLS, log)
	return a, err
}

func certificate(at string, t *config.ServerTLS, log *slog.Logger) (*httpapi.Certificate, error) {
	if t == nil {
		return nil, nil
	}
	c, err := httpapi.LoadCertificate(t.Cert, t.Key, log)
	if err != nil {
		return nil, &settingError{at + " cannot be used", "cert and key must be PEM files that belong together, readable for this process", err}
	}
	return c, nil
}

// ownRegistry returns a client of our own registry at an address.
func ownRegistry(r config.Registry, address string) (*registry.Client, error) {
	c := registry.ClientConfig{URL: "http://" + httpapi.Reach(address), User: r.User, Password: r.Password.Reveal()}
	if r.TLS != nil {
		c.URL = "https://" + httpapi.Reach(address)
		var err error
		if c.TLS, err = httpapi.PinTo(r.TLS.Cert); err != nil {
			return nil, &settingError{"registry.tls.cert cannot be used", "it must be the PEM file of the registry's certificate", err}
		}
	}
	return registry.NewClient(c)
}

// StatusOf asks the process that is configured so for its status.
func StatusOf(ctx context.Context, h *config.HTTP) (*httpapi.Status, error) {
	address := httpapi.Reach(h.Listen)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	transport.Proxy = nil // it is on this machine, or where a flag says
	url := "http://" + address + "/status"
	if h.TLS != nil {
		url = "https://" + address + "/status"
		var err error
		if transport.TLSClientConfig, err = httpapi.PinTo(h.TLS.Cert); err != nil {
			return nil, &settingError{"http.tls.cert cannot be used", "it must be the PEM file of the certificate with which the process answers", err}
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if h.Token.Set() {
		req.Header.Set("Authorization", "Bearer "+h.Token.Reveal())
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, &UnansweredError{address, err}
	}
	defer resp.Body.Close()
	var s httpapi.Status
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s", resp.Status)
	}
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err != nil {
		return nil, &UnansweredError{address, err}
	}
	return &s, nil
}

// UnansweredError is a process that does not tell its status.
type UnansweredError struct {
	address string
	err     error
}

// Error implements error.
func (e *UnansweredError) Error() string {
	return fmt.Sprintf("ask for the status at %s: %v", e.address, e.err)
}

// Unwrap gives the cause.
func (e *UnansweredError) Unwrap() error { return e.err }

// Environment asks for exit code 3.
func (e *UnansweredError) Environment() bool { return true }

// Hint says what to do.
func (e *UnansweredError) Hint() string {
	return "check that `tailrace run` runs with this configuration"
}
