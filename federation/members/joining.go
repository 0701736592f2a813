package members

import (
	"math/rand/v2"
	"time"

	"fmt"
	"github.com/branchline-video/branchline/federation/link"
)

const (
	// rejoinAfter is how long a state that was got from a hub does for a link that comes back.
	rejoinAfter = 10 * time.Minute
	// tellAfter is how long a node must have been without a link to tell again that it is there: sooner
	// nobody gave it up.
	tellAfter = 8 * time.Second
	// wordEvery is the least time between two words of a node about its links, so that one that flaps does
	// not fill everybody's link, and wordAfter how long a change must have lasted.
	wordEvery = 4 * time.Second
	wordAfter = 2 * time.Second
	// wordTimes is how often each word is told: when only some can hear a member, a rumour may die out.
	wordTimes = 3
	// joinAgain is the pause after a join that failed, and as much again at random.
	joinAgain = 5 * time.Second
)

// joining joins the members through the hub, or tells them that this node is back, and then keeps its word
// of its links up to date while the link lives.
func (l *Link) joining(life uint64) {
	n, hub := l.n, l.peerName()
	n.mu.Lock()
	was := n.joined[hub]
	n.mu.Unlock()
	if was.life != life || n.now().Sub(was.at) > rejoinAfter {
		for !l.join(hub) {
			if !l.wait(joinAgain + rand.N(joinAgain)) {
				return
			}
		}
		n.mu.Lock()
		n.joined[hub] = joining{life, n.now()}
		n.mu.Unlock()
	}
	for l.wait(wordAfter) {
		n.tell()
	}
}

func (l *Link) join(hub string) bool {
	_, err := l.n.ml.Join([]string{fmt.Sprintf("%s/%s:%d", hub, addrOf(hub), link.DefaultPort)})
	if err != nil {
		l.n.m.cfg.Logger.Debug("join members", "hub", hub, "error", err)
	}
	return err == nil
}

func (l *Link) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.life.Done():
		return false
	}
}
