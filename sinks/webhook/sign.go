package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// Signatures as Standard Webhooks describes them (version 1 of its specification,
// "symmetric"): HMAC-SHA256 over id, timestamp and body, joined by full stops.

// secretPrefix marks a secret that is written in base64.
const secretPrefix = "whsec_"

// leastSecret is how many bytes a secret must have: below, it can be guessed.
const leastSecret = 16

var (
	errSecretBase64 = errors.New("is not base64 after " + secretPrefix)
	errSecretShort  = errors.New("is shorter than " + strconv.Itoa(leastSecret) + " bytes")
)

// parseSecret returns the bytes of a secret. The error does not show it.
func parseSecret(text string) ([]byte, error) {
	key := []byte(text)
	if encoded, ok := strings.CutPrefix(text, secretPrefix); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return nil, errSecretBase64
		}
	}
	if len(key) < leastSecret {
		return nil, errSecretShort
	}
	return key, nil
}

// signatures returns the value of the header webhook-signature: one signature for each key,
// so that a receiver finds the one that it knows while keys are being changed.
func signatures(keys [][]byte, id string, unix int64, body []byte) string {
	var out []byte
	for i, key := range keys {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(id + "." + strconv.FormatInt(unix, 10) + "."))
		h.Write(body)
		if i > 0 {
			out = append(out, ' ')
		}
		out = base64.StdEncoding.AppendEncode(append(out, "v1,"...), h.Sum(nil))
	}
	return string(out)
}
