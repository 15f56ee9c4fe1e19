// Package interop has no code of its own: its tests let other PASETO
// implementations open what we seal, and seal what we open.
package interop
