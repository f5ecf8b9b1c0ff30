package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// tolerance is how old a request may be, or how far in the future, for a clock that is off:
// somebody who has recorded one cannot send it again later.
const tolerance = 5 * time.Minute

var (
	errSecret    = errors.New("must be a secret of 16 bytes or more, with whsec_ before its base64")
	errHeaders   = errors.New("webhook-id, webhook-timestamp or webhook-signature is missing")
	errTimestamp = errors.New("the timestamp is too far from now")
	errSignature = errors.New("no signature is right")
)

// parseSecret returns the bytes of a secret.
func parseSecret(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < 16 {
		return nil, errSecret
	}
	return key, nil
}

// verify says whether a request was signed with one of the secrets, as Standard Webhooks
// has it: HMAC-SHA256 of id, timestamp and body, joined by full stops. There may be several
// signatures, while a secret is being changed.
func verify(secrets [][]byte, h http.Header, body []byte, now time.Time) error {
	id, at, given := h.Get("webhook-id"), h.Get("webhook-timestamp"), h.Get("webhook-signature")
	if id == "" || at == "" || given == "" {
		return errHeaders
	}
	unix, err := strconv.ParseInt(at, 10, 64)
	if err != nil || now.Sub(time.Unix(unix, 0)).Abs() > tolerance {
		return errTimestamp
	}
	for _, key := range secrets {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + at + "."))
		mac.Write(body)
		want := mac.Sum(nil)
		for signature := range strings.FieldsSeq(given) {
			encoded, ok := strings.CutPrefix(signature, "v1,")
			if got, err := base64.StdEncoding.DecodeString(encoded); ok && err == nil && hmac.Equal(got, want) {
				return nil
			}
		}
	}
	return errSignature
}
