package main

import (
	"fmt"
	"os"
	"strings"
)

// allowed are the mutants that change nothing that could be observed, each with the reason.
//
// The file has one line for each mutant, as the command prints it when it survives. The
// indented lines after one or several mutants are the reason. Empty lines and lines that
// begin with # are ignored.
type allowed map[string]string

func readAllowed(name string) (allowed, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	all, waiting, said := allowed{}, []string(nil), false
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.TrimSpace(line) == "" || line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if len(waiting) == 0 {
				return nil, fmt.Errorf("%s:%d: a reason without a mutant", name, i+1)
			}
			for _, key := range waiting {
				all[key] += strings.TrimSpace(line) + "\n"
			}
			said = true
		default:
			if said {
				waiting, said = nil, false
			}
			if _, twice := all[line]; twice {
				return nil, fmt.Errorf("%s:%d: twice: %s", name, i+1, line)
			}
			all[line] = ""
			waiting = append(waiting, line)
		}
	}
	for key, reason := range all {
		if reason == "" {
			return nil, fmt.Errorf("%s: no reason is given for %s", name, key)
		}
	}
	return all, nil
}
