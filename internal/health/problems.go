package health

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/fobkit/fob/internal/record"
)

// MaxProblems is how many problems there may be before a further record that cannot be read
// is no longer added, because there may be very many such records. Any other problem is
// always added.
const MaxProblems = 32

// Problems is the list of what is wrong until somebody mends it. Each problem has a name.
// The zero value has none. It is safe for concurrent use.
type Problems struct {
	mu  sync.Mutex // guards all
	all map[string]error
}

// Set notes what is wrong with the thing that has a name; a nil err says that nothing is
// wrong with it. news reports whether it is wrong now and was not before.
func (p *Problems) Set(name string, err error) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set(name, err)
}

// SetRecord is Set for a record that cannot be read, or can be read again.
func (p *Problems) SetRecord(id record.ID, err error) (news bool) {
	name := fmt.Sprintf("record %x", id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.all[name]; !known && len(p.all) >= MaxProblems {
		return false
	}
	return p.set(name, err)
}

func (p *Problems) set(name string, err error) (news bool) {
	if err == nil {
		delete(p.all, name)
		return false
	}
	if p.all == nil {
		p.all = make(map[string]error)
	}
	_, known := p.all[name]
	p.all[name] = err
	return !known
}

// List returns the problems in the order of their names.
func (p *Problems) List() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []error
	for _, name := range slices.Sorted(maps.Keys(p.all)) {
		all = append(all, p.all[name])
	}
	return all
}
