package fob

import (
	"reflect"
	"unsafe"
)

// BreakTickets makes the cache of keys take what comes in without asking whether it
// changed since it was read. The switch is an unexported field of another package:
// the cache offers nobody a way to break it, so the proof reaches in.
func BreakTickets(m *Manager) {
	field := reflect.ValueOf(m.answers.keys).Elem().FieldByName("broken").FieldByName("ignoreTicket")
	*(*bool)(unsafe.Pointer(field.UnsafeAddr())) = true
}
