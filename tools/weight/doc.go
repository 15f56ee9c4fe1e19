// Package weight measures what each part of this repository adds to the build of a program
// that uses it, and fails if docs/dependencies.md says something else.
//
//	go test ./tools/weight                    # compiled modules and go.sum lines, exactly
//	go test ./tools/weight -bytes             # the size of the program as well, within a twentieth
//	go test ./tools/weight -bytes -update     # writes the table
package weight
