package members

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestDay lives through HOURS (2; make soak takes 24) of virtual time with SEEDS (1) seeds: 5 % of all packets are
// lost in each link and direction, and each branch's box stands still for up to 3 s every few minutes. Nothing but
// online or suspect may be shown. At its end a branch dies, and one is cut off from one of its two hubs.
func TestDay(t *testing.T) {
	hours := time.Duration(fromEnv(t, "HOURS", 2)) * time.Hour
	for seed := range uint64(fromEnv(t, "SEEDS", 1)) {
		synctest.Test(t, func(t *testing.T) { day(t, seed+1, hours) })
	}
}

func day(t *testing.T, seed uint64, span time.Duration) {
	const loss = 0.05
	all := names(3)
	a, b := newCentre(t, "a", all...), newCentre(t, "b", all...)
	rng := rand.New(rand.NewPCG(seed, 77))
	var sites []*site
	for i, name := range all {
		homes := []*centre{a, b}
		if i == 0 {
			homes = homes[:1]
		}
		sites = append(sites, newSite(t, name, seed<<8+uint64(i), loss, homes...))
	}
	pause(time.Minute)
	freezes, suspects := 0, 0
	for end := time.Now().Add(span); time.Now().Before(end); pause(2 * time.Second) {
		for i, s := range sites {
			for j, hub := range []*centre{a, b}[:len(s.wires)] {
				st := hub.standing(s.name)
				if st.Alarm() || st.State == Left {
					t.Errorf("seed %d, %v: %s is %v at hub %d", seed, time.Now(), s.name, st, j)
				}
				if st.State == Suspect {
					suspects++
				}
			}
			if rng.IntN(100) == i {
				freezes++
				s.freeze(time.Duration(rng.Int64N(int64(3 * time.Second))))
			}
		}
	}
	t.Logf("seed %d: %v at 5 %% loss, %d times without CPU: no alarm, suspect %d times", seed, span, freezes, suspects)

	sites[0].wires[0].cut(true, true)
	sites[1].wires[0].cut(true, true)
	died := time.Now()
	shown := map[string]time.Duration{}
	for time.Since(died) < 30*time.Second {
		pause(100 * time.Millisecond)
		for name, want := range map[string]State{all[0]: LinkDown, all[1]: Unreachable} {
			if st := a.standing(name); st.State == want && shown[name] == 0 {
				shown[name] = time.Since(died)
			}
		}
	}
	t.Logf("seed %d: dead shown after %v, unreachable from this hub after %v", seed, shown[all[0]], shown[all[1]])
	// That another hub sees the site is a rumour of that hub, which may be lost once and is told again a probe later.
	for name, most := range map[string]time.Duration{all[0]: 15 * time.Second, all[1]: 15*time.Second + probeInterval} {
		if s := shown[name]; s == 0 || s > most {
			t.Errorf("seed %d: %s shown after %v: %v", seed, name, s, a.standing(name))
		}
	}
	for _, s := range sites {
		s.close(t)
	}
	a.close()
	b.close()
}

// freeze makes the box stand still: what comes and goes is late.
func (s *site) freeze(d time.Duration) {
	for _, w := range s.wires {
		w.mu.Lock()
		w.frozen = time.Now().Add(d)
		w.mu.Unlock()
	}
}
