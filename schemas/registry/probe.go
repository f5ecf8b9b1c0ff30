package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A ProbeStep is a step of Probe.
type ProbeStep string

// The steps of Probe, in their order.
const (
	ProbeReach    ProbeStep = "reach"    // see Ping
	ProbeRegister ProbeStep = "register" // a schema in the scratch subject, which is read back by its id
	ProbeDelete   ProbeStep = "delete"   // of the scratch subject, for good
)

// ProbeResult is what became of one step; Err is nil if it worked.
type ProbeResult struct {
	Step ProbeStep
	Took time.Duration
	Err  error
}

const (
	// probeSchema is one that many registries know: then it takes no new id.
	probeSchema = `"string"`
	// probeClean is how long the deletion may take, after the context's end.
	probeClean = 10 * time.Second
)

// Probe registers a schema in subject, which nothing else uses, and deletes the subject
// again, also if ctx ends. The steps that were tried are returned.
func (c *Client) Probe(ctx context.Context, subject string) (results []ProbeResult) {
	step := func(s ProbeStep, fn func() error) bool {
		begun := time.Now()
		err := fn()
		results = append(results, ProbeResult{s, time.Since(begun), err})
		return err == nil
	}
	if !step(ProbeReach, func() error { return c.Ping(ctx) }) {
		return results
	}
	step(ProbeRegister, func() error {
		_, err := c.Register(ctx, subject, probeSchema)
		return err
	})
	if refused(results[1].Err) {
		return results // nothing can be there
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeClean)
	defer cancel()
	step(ProbeDelete, func() error { return c.DeleteSubject(clean, subject) })
	return results
}

// refused says that the registry answered, and did not take the request.
func refused(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status >= 400 && e.Status < 500
}

// DeleteSubject deletes a subject for good: softly first, as the API has it. A subject that
// is not there is no error. Its schemas keep their ids.
func (c *Client) DeleteSubject(ctx context.Context, subject string) error {
	path := "/subjects/" + url.PathEscape(subject)
	soft := request{op: "delete subject", subject: subject, method: http.MethodDelete, path: path}
	if err := c.do(ctx, soft, nil); err != nil && !NotFound(err) {
		return err
	}
	hard := request{op: "delete subject for good", subject: subject, method: http.MethodDelete, path: path + "?permanent=true"}
	if err := c.do(ctx, hard, nil); err != nil && !NotFound(err) {
		return fmt.Errorf("%w; it is deleted softly", err)
	}
	return nil
}
