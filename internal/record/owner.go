package record

import (
	"encoding/binary"
	"slices"
	"strings"
)

// The first byte of an owner is the digit of the kind of its subject. A subject of an
// account has a digit that is withAccount higher, and then the account stands before the
// name, with its length.
const (
	kinds       = 2 // of subject: '1' and '2'
	withAccount = kinds
)

// Owner returns a subject in the form in which records have it. kind is that of the
// subject, account is "" for none.
func Owner(kind uint8, account, name string) string {
	if account == "" {
		return string([]byte{'0' + kind}) + name
	}
	b := make([]byte, 0, 1+binary.MaxVarintLen16+len(account)+len(name))
	b = append(b, '0'+kind+withAccount)
	b = binary.AppendUvarint(b, uint64(len(account)))
	return string(append(append(b, account...), name...))
}

// ParseOwner is the reverse of Owner. ok is false for a text that Owner does not return
// for a kind that is known and a name that is not empty.
func ParseOwner(owner string) (kind uint8, account, name string, ok bool) {
	if owner == "" {
		return 0, "", "", false
	}
	switch kind = owner[0] - '0'; {
	case kind >= 1 && kind <= kinds:
		name = owner[1:]
	case kind > withAccount && kind <= withAccount+kinds:
		n, used := uvarint(owner[1:])
		rest := owner[1:]
		if used <= 0 || n == 0 || n > uint64(len(rest)-used) {
			return 0, "", "", false
		}
		kind -= withAccount
		account, name = rest[used:used+int(n)], rest[used+int(n):]
	default:
		return 0, "", "", false
	}
	return kind, account, name, name != ""
}

// KnownSubject reports whether an owner, as a record has it, is a subject.
func KnownSubject(owner string) bool {
	_, _, _, ok := ParseOwner(owner)
	return ok
}

// SubjectID returns the ID of the record of a subject, which has this owner.
func SubjectID(owner string) ID { return Named(Subject, owner) }

// AccountID returns the ID of the record of an account; the zero ID for no account.
func AccountID(account string) ID {
	if account == "" {
		return ID{}
	}
	return Named(Account, account)
}

// The labels by which people look for records. The first byte says what the label is.

// AccountLabel is the label of everything of an account.
func AccountLabel(account string) string { return "a" + account }

// TagLabel is the label of the keys with a tag, in whatever account. If account is not "",
// it is that of the keys of this account with the tag.
func TagLabel(account, tag string) string {
	if account == "" {
		return "t" + tag
	}
	return "T" + string(binary.AppendUvarint(nil, uint64(len(account)))) + account + tag
}

// RoleLabel is the label of the keys with a role.
func RoleLabel(role string) string { return "r" + role }

// Labels returns labels in the order in which a record has them, without "".
func Labels(labels ...string) []string {
	labels = slices.DeleteFunc(labels, func(l string) bool { return l == "" })
	slices.SortFunc(labels, strings.Compare)
	return slices.Compact(labels)
}
