//go:build !unix

package etcdtest_test

import "time"

// cpu is unknown here.
func cpu() time.Duration { return 0 }
