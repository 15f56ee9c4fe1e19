// Command hello issues an API key, verifies it and revokes it.
package main

import (
	"context"
	"fmt"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
)

func main() {
	ctx := context.Background()
	keys, err := fob.New(memory.New(), fob.Config{Prefix: "acme_live"})
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	secret, key, err := keys.IssueKey(ctx, fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"orders:read"}})
	if err != nil {
		panic(err)
	}
	cred, err := keys.Verify(ctx, secret.Reveal()) // what a client presents
	fmt.Println(cred.Subject(), cred.Allows("orders:read"), err)
	_, err = keys.Revoke(ctx, key.ID(), "leaked")
	fmt.Println("revoked:", err)
	_, err = keys.Verify(ctx, secret.Reveal())
	fmt.Println(err)
}
