package registry

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// mediaTypes are the content types that are served, the preferred one first.
var mediaTypes = []string{mediaType, "application/vnd.schemaregistry+json", "application/json"}

// negotiate chooses the content type of an answer: of those with the highest quality in
// Accept the first of mediaTypes. Empty: none is acceptable. Without Accept, the first.
func negotiate(accept []string) string {
	header := strings.TrimSpace(strings.Join(accept, ","))
	if header == "" {
		return mediaType
	}
	best, bestQuality := "", 0.0
	for _, t := range mediaTypes {
		if q := quality(header, t); q > bestQuality {
			best, bestQuality = t, q
		}
	}
	return best
}

// quality returns what Accept says of a content type, by its most specific range.
func quality(accept, t string) float64 {
	q, specific := 0.0, -1
	for part := range strings.SplitSeq(accept, ",") {
		name, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		s := specificity(name, t)
		if s <= specific {
			continue
		}
		specific, q = s, 1.0
		if p, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(p, 64); err != nil {
				q = 0
			}
		}
	}
	return q
}

// specificity is 2 for the type itself, 1 and 0 for ranges that hold it, else -1.
func specificity(name, t string) int {
	switch name {
	case t:
		return 2
	case "application/*":
		return 1
	case "*/*":
		return 0
	}
	return -1
}

// jsonBody says whether a request's body is one that the API takes. Types that a browser
// sends to other sites without asking first (text/plain, forms) are not.
func jsonBody(h http.Header) bool {
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return false
	}
	if h.Get("Content-Type") == "" {
		return true
	}
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return false
	}
	for _, served := range mediaTypes {
		if t == served {
			return true
		}
	}
	return t == "application/octet-stream"
}
