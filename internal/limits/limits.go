// Package limits checks what callers hand in: texts, labels and times. It does not know
// what they are for. Its errors are errs.ErrInvalid and never quote the value that they
// refuse: a secret that was put into the wrong field must not come back in an error.
package limits

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fobkit/fob/internal/errs"
)

// The limits of the tags and of the metadata of one key.
const (
	maxTags     = 16
	maxTag      = 64 // bytes
	maxMeta     = 32
	maxMetaSize = 4 << 10 // bytes of all names and values
)

// Meta returns a copy of metadata that shares no memory with it, or refuses it: more than
// maxMeta entries, more than maxMetaSize bytes, an empty name or one with control
// characters, or broken UTF-8. No metadata is nil.
func Meta(meta map[string]string) (map[string]string, error) {
	if len(meta) == 0 {
		return nil, nil
	}
	if len(meta) > maxMeta {
		return nil, fmt.Errorf("%w: metadata of %d entries, at most %d", errs.ErrInvalid, len(meta), maxMeta)
	}
	size := 0
	out := make(map[string]string, len(meta))
	for name, value := range meta {
		if size += len(name) + len(value); size > maxMetaSize {
			return nil, fmt.Errorf("%w: metadata of more than %d bytes", errs.ErrInvalid, maxMetaSize)
		}
		if name == "" || !isPlain(name) || !utf8.ValidString(value) {
			return nil, fmt.Errorf("%w: metadata with an empty name, control characters in a name or broken UTF-8", errs.ErrInvalid)
		}
		out[strings.Clone(name)] = strings.Clone(value)
	}
	return out, nil
}

// CheckText refuses a text of fewer than least or more than most bytes, and a text with
// control characters or broken UTF-8. what is the name of the text in the error.
func CheckText(what, text string, least, most int) error {
	if len(text) < least || len(text) > most {
		return fmt.Errorf("%w: %s of %d bytes, want %d to %d", errs.ErrInvalid, what, len(text), least, most)
	}
	if !isPlain(text) {
		return fmt.Errorf("%w: %s with control characters or broken UTF-8", errs.ErrInvalid, what)
	}
	return nil
}

// IsText reports whether CheckText accepts a text of 1 to most bytes, for callers that have
// an error of their own.
func IsText(text string, most int) bool {
	return text != "" && len(text) <= most && isPlain(text)
}

// CheckList refuses a list of no or more than most texts, and one with a text that IsText
// refuses or that is named twice. what is the name of the list in the error.
func CheckList(what string, list []string, most, longest int) error {
	if len(list) == 0 || len(list) > most {
		return fmt.Errorf("%w: %d %s, want 1 to %d", errs.ErrInvalid, len(list), what, most)
	}
	for i, text := range list {
		if !IsText(text, longest) || slices.Contains(list[:i], text) {
			return fmt.Errorf("%w: %s: number %d, of %d bytes, is not allowed or is named twice", errs.ErrInvalid, what, i, len(text))
		}
	}
	return nil
}

// isPlain reports whether text is UTF-8 without control characters.
func isPlain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// CheckTime refuses a time that is set and lies outside the years 1970 to 9999. Only in
// these years a record, RFC 3339 and package time agree. what is the name of the time in
// the error.
func CheckTime(what string, t time.Time) error {
	if year := t.UTC().Year(); !t.IsZero() && (year < 1970 || year > 9999) {
		return fmt.Errorf("%w: %s in the year %d, want 1970 to 9999", errs.ErrInvalid, what, year)
	}
	return nil
}

// Tags returns a checked copy of the tags of a key, without duplicates, in the order given.
// It shares no memory with tags.
func Tags(tags []string) ([]string, error) {
	if len(tags) > maxTags {
		return nil, fmt.Errorf("%w: %d tags, at most %d", errs.ErrInvalid, len(tags), maxTags)
	}
	out := make([]string, 0, len(tags))
	for _, tag := range tags {
		if err := CheckText("tag", tag, 1, maxTag); err != nil {
			return nil, err
		}
		if !slices.Contains(out, tag) {
			out = append(out, strings.Clone(tag))
		}
	}
	return out, nil
}
