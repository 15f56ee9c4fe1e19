package imported

import (
	"fmt"

	"github.com/fobkit/fob/internal/errs"
)

// waitsFor is how often a call finds that another one is at the same work, before it
// takes the work over: half a second to a second.
const waitsFor = 24

// errTakenOver is why a call waits.
var errTakenOver = fmt.Errorf("%w: another call has taken it over", errs.ErrConflict)
