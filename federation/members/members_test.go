package members

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestMembers runs a hub and three edges: they find each other, one that stops has left, one that dies is
// found out, and one that comes back is there again.
func TestMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := names(3)
		hub := newCentre(t, "a", all...)
		defer hub.close()
		var sites []*site
		for i, name := range all {
			sites = append(sites, newSite(t, name, uint64(i), 0, hub))
		}
		pause(20 * time.Second)
		if n := hub.m.Alive(); n != 4 {
			t.Errorf("hub sees %d members alive, want 4", n)
		}
		for _, s := range sites {
			n, _ := s.m.node(s.name)
			if alive := n.ml.NumMembers(); alive != 4 {
				t.Errorf("%s sees %d members alive, want 4", s.name, alive)
			}
			if st := hub.standing(s.name); st.State != Online {
				t.Errorf("%s is %v", s.name, st)
			}
		}
		sites[0].close(t)
		if st := hub.standing(all[0]); st.State != Left || st.Alarm() {
			t.Errorf("an edge that was stopped is %v", st)
		}
		sites[1].wires[0].cut(true, true)
		pause(5 * time.Second)
		if st := hub.standing(all[1]); st.State != LinkDown || !st.Alarm() {
			t.Errorf("an edge that is cut off is %v", st)
		}
		pause(2 * time.Minute)
		if g := hub.m.Gossip("branch-001"); g.Life != LifeDead {
			t.Errorf("gossip says %v of an edge that is cut off", g)
		}
		sites[1].wires[0].cut(false, false)
		pause(20 * time.Second)
		if st := hub.standing(all[1]); st.State != Online {
			t.Errorf("an edge that is back is %v", st)
		}
		if g := hub.m.Gossip("branch-001"); g.Life != LifeAlive {
			t.Errorf("gossip says %v of an edge that is back", g)
		}
		sites[1].close(t)
		sites[2].close(t)
	})
}
