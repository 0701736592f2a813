package federation

import "sync"

// places bounds who is at something at once: all together, and those of one kind, so that nobody takes the places
// of all others.
type places[K comparable] struct {
	most, mostOf int

	mu  sync.Mutex
	all int
	of  map[K]int
}

func newPlaces[K comparable](most, mostOf int) *places[K] {
	return &places[K]{most: most, mostOf: mostOf, of: make(map[K]int)}
}

// enter takes a place for one of the kind, if there is one. The caller gives it back with leave.
func (p *places[K]) enter(kind K) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.most || p.of[kind] >= p.mostOf {
		return nil, false
	}
	p.all++
	p.of[kind]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.of[kind]--; p.of[kind] == 0 {
			delete(p.of, kind)
		}
	}, true
}
