// Command program is a program that issues, verifies and revokes on a store, for the tests
// of rolling deploys: see package rolling.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/fobkit/fob/internal/fleettest/rolling"
)

func main() {
	if err := rolling.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		os.Exit(1)
	}
}
