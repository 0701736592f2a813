package link

import (
	"sync"

	"github.com/branchline-video/branchline"
)

// maxJoiningOf bounds the connections of one site that are about to join: those of a whole bundle.
const maxJoiningOf = MaxConnections

// joins are the connections that are about to join a bundle: at most maxJoining, and of one site no more than it
// needs, so that it takes nobody's place. The zero value has none.
type joins struct {
	mu  sync.Mutex
	all int
	of  map[branchline.SiteID]int
}

// enter takes a place, if there is one. The caller gives it back with leave.
func (j *joins) enter(site branchline.SiteID) (leave func(), ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.all >= maxJoining || j.of[site] >= maxJoiningOf {
		return nil, false
	}
	if j.of == nil {
		j.of = make(map[branchline.SiteID]int)
	}
	j.all++
	j.of[site]++
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.all--
		if j.of[site]--; j.of[site] == 0 {
			delete(j.of, site)
		}
	}, true
}
