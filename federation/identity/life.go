package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/branchline-video/branchline"
)

// Life tells one run of a node from every other, so that a hub notices when two nodes have one identity or an
// old state was put back.
type Life struct {
	Instance uint64              // random, made when the process started; 0: not told
	Opens    uint64              // how often the node was started, this time included; 0: not known
	Feed     branchline.Position // the newest of its change feed; zero: not known
}

// opensFile holds how often a node was started.
const opensFile = "opens.json"

// CountOpen counts this start of the node, durably, in its identity's directory and in beside, the directory of
// its store; a node of which one of the two was lost goes on counting from the other. It is called once, while
// nobody else can have the directories open. After an error the start stays uncounted and hubs are not told.
func (n *Node) CountOpen(beside string) error {
	mine, err := readOpens(n.dir)
	if err != nil {
		return fmt.Errorf("count start: %w", err)
	}
	others, err := readOpens(beside)
	if err != nil {
		return fmt.Errorf("count start: %w", err)
	}
	opens := max(mine, others) + 1
	data, err := json.Marshal(opens)
	if err != nil {
		return fmt.Errorf("count start: %w", err)
	}
	for _, dir := range []string{n.dir, beside} {
		if err := writeFile(dir, opensFile, data); err != nil {
			return fmt.Errorf("count start: %w", err)
		}
	}
	n.mu.Lock()
	n.opens = opens
	n.mu.Unlock()
	return nil
}

func readOpens(dir string) (opens uint64, err error) {
	data, err := readFile(dir, opensFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &opens)
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", opensFile, err)
	}
	return opens, nil
}

// Life returns what tells this run of the node from others, but for its feed.
func (n *Node) Life() Life {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Life{Instance: n.instance, Opens: n.opens}
}

// Expired reports whether the node's own certificate has ended, by its own clock.
func (n *Node) Expired() bool {
	now := n.clock.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cert != nil && now.After(n.cert.NotAfter)
}

// seenDir holds, below the authority's directory, a file for each site with who was last let in.
const seenDir = "seen"

// sighting is a node as the hub saw it.
type sighting struct {
	Key      []byte    `json:"key,omitempty"` // SHA-256 of its public key
	Instance uint64    `json:"instance"`
	Opens    uint64    `json:"opens"`
	Epoch    uint64    `json:"epoch,omitempty"` // of its feed, with the number of its newest change
	Seq      uint64    `json:"seq,omitempty"`
	Addr     string    `json:"addr"`
	Software string    `json:"software,omitempty"`
	At       time.Time `json:"at"`
}

func (s sighting) node() SeenNode {
	return SeenNode{Instance: s.Instance, Opens: s.Opens, Addr: s.Addr, Software: s.Software, At: s.At}
}

func (a *Authority) readSeen(site branchline.SiteID) (s sighting, err error) {
	data, err := readFile(a.dir, seenName(site))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return sighting{}, fmt.Errorf("read who was seen: %w", err)
	}
	return s, nil
}
