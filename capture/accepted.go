package capture

import (
	"context"
	"fmt"
	"time"

	"github.com/tailrace/tailrace/schemas/registry"
)

// acceptedKey is the key of the record of acceptances.
const acceptedKey = "accepted"

// acceptances is the record accepted: subjects whose next schema a person has accepted
// although the registry finds it incompatible.
type acceptances map[string]acceptance

// acceptance is for the one schema that comes after Version.
type acceptance struct {
	Version int            `json:"version"`
	Level   registry.Level `json:"level"` // of compatibility, to be put back
	Own     bool           `json:"own"`   // the subject had it itself
	At      time.Time      `json:"at"`
}

// incompatible is a registry's refusal, with the decision that leads on.
type incompatible struct {
	error
	subject string
}

func (e *incompatible) Unwrap() error { return e.error }
func (e *incompatible) Ways() []Way   { return []Way{{WaySchema, e.subject}} }

// Hint says what to think of before.
func (e *incompatible) Hint() string {
	return "revert the change of the table; or, if every reader of the topic can take the new schema, accept it"
}

// accept registers a schema that was accepted. The level of the subject is NONE meanwhile; it is
// put back also by a start after one that was killed in between.
func (r *routes) accept(ctx context.Context, subject, schema string, a acceptance, id int32, refused error) (int32, error) {
	last, err := r.cfg.Registry.Latest(ctx, subject)
	if err != nil {
		return 0, err
	}
	if refused != nil {
		if last.Version != a.Version { // it was used, or somebody else has registered one
			return 0, refused
		}
		if err := r.cfg.Registry.SetLevel(ctx, subject, registry.None); err != nil {
			return 0, fmt.Errorf("accept the schema: %w", err)
		}
		if id, err = r.cfg.Registry.Register(ctx, subject, schema); err != nil {
			return 0, err
		}
		if last, err = r.cfg.Registry.Latest(ctx, subject); err != nil {
			return 0, err
		}
	}
	if last.Version == a.Version {
		return id, nil // it was not needed for this one
	}
	if a.Own {
		err = r.cfg.Registry.SetLevel(ctx, subject, a.Level)
	} else {
		err = r.cfg.Registry.ClearLevel(ctx, subject)
	}
	if err != nil && !registry.NotFound(err) {
		return 0, fmt.Errorf("put the level of compatibility back: %w", err)
	}
	r.log.Warn("registered a schema that was accepted by a person", "subject", subject, "version", last.Version, "after", a.Version)
	delete(r.accepted, subject)
	r.settled = true
	return id, nil
}

// settledRecord returns the state record of what is still accepted, if that has changed.
func (r *routes) settledRecord() []stateRecord {
	if !r.settled {
		return nil
	}
	r.settled = false
	return []stateRecord{{key: acceptedKey, value: mustJSON(r.accepted)}}
}
