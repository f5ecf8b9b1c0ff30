package webhook

import (
	"strings"
	"testing"
)

// The first is the example of Standard Webhooks' specification, the second was computed with
// openssl dgst -sha256 -hmac.
func TestSignatures(t *testing.T) {
	for _, c := range []struct {
		secret, id string
		unix       int64
		body, want string
	}{
		{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, `{"test": 2432232314}`, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
		{"a plain secret of 32 characters!", "shop:1:0:26842384:3", 1763000000, `{"op":"c","note":"é"}`, "v1,H/InpERNepMo1ZBEaf7Ix682IWKrPJDCbQjlgPjfJEc="},
	} {
		key, err := parseSecret(c.secret)
		if err != nil {
			t.Fatal(err)
		}
		if got := signatures([][]byte{key}, c.id, c.unix, []byte(c.body)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.id, got, c.want)
		}
		other := []byte("another secret, which is new")
		if got := signatures([][]byte{other, key}, c.id, c.unix, []byte(c.body)); !strings.HasPrefix(got, "v1,") || !strings.HasSuffix(got, " "+c.want) || strings.Count(got, " ") != 1 {
			t.Errorf("%s: with two secrets: %s", c.id, got)
		}
	}
}

func TestParseSecret(t *testing.T) {
	for text, want := range map[string]error{
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": nil, "0123456789abcdef": nil, "0123456789abcde": errSecretShort, "": errSecretShort,
		"whsec_": errSecretShort, "whsec_AAAA": errSecretShort, "whsec_not base64, though long enough": errSecretBase64,
	} {
		if _, err := parseSecret(text); err != want {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}
