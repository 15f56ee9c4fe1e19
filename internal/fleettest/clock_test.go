package fleettest_test

import "golang.org/x/sys/unix"

// instant reads the clock that all processes of a machine share and nobody sets.
func instant() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}
