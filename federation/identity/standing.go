package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/branchline-video/branchline"
)

const (
	// doubtLife is how long a first doubt about a node counts. A greeting may arrive late, when the process that
	// sent it is gone and its successor was let in; only who comes again, over a new connection, is there.
	doubtLife = 10 * time.Minute
	// maxNodes bounds the nodes that are remembered of a quarantine; the one not seen for longest goes.
	maxNodes = 8
	// seenAgain is how often it is written down that a quarantined node is still there, and here how long ago
	// at most that may be for a node that is approved without being named.
	seenAgain, hereWithin = 20 * time.Second, 50 * time.Second
	// noteEvery is the least time between two new nodes that are noted of a quarantine: each is a write of the list,
	// and whoever has the identity may come as often, and as as many nodes, as it likes.
	noteEvery = time.Second
	// refreshShare is the share of a certificate's life after which the hub asks for renewal. An edge renews
	// long before, unless its clock is wrong.
	refreshShare = 0.85
)

// The causes of a quarantine.
const (
	CauseDuplicate  = "duplicate"   // two nodes were there at once
	CauseRolledBack = "rolled-back" // a node came with an older state than the hub had seen of it
)

// Quarantine tells of a site of which no node may link until an operator has chosen one.
type Quarantine struct {
	Since time.Time
	Cause string     // CauseDuplicate or CauseRolledBack
	Nodes []SeenNode // which came with the identity, the latest first
	// Approved is when a node was approved; until that has shown a certificate of its own another may be. Zero while
	// none is let in.
	Approved time.Time
}

// SeenNode is one that came with a site's identity.
type SeenNode struct {
	Instance uint64 // random, of one run of a node's process
	Opens    uint64 // how often that node was started
	Addr     string
	Software string
	At       time.Time // when it last came
}

type quarantine struct {
	Since    time.Time  `json:"since"`
	Cause    string     `json:"cause"`
	Nodes    []sighting `json:"nodes"`
	Ended    time.Time  `json:"ended,omitzero"`    // by approving
	Approved uint64     `json:"approved,omitzero"` // the instance, until it has a certificate of the new generation
}

func (q *quarantine) told() *Quarantine {
	told := &Quarantine{Since: q.Since, Cause: q.Cause, Approved: q.Ended}
	for _, n := range q.Nodes {
		told.Nodes = append(told.Nodes, n.node())
	}
	return told
}

// note returns q with the node in front.
func (q quarantine) note(s sighting) *quarantine {
	nodes := slices.DeleteFunc(slices.Clone(q.Nodes), func(o sighting) bool { return o.Instance == s.Instance })
	nodes = append([]sighting{s}, nodes...)
	q.Nodes = nodes[:min(len(nodes), maxNodes)]
	return &q
}

// lets reports whether the instance is the one that was approved.
func (q *quarantine) lets(instance uint64) bool {
	return q != nil && !q.Ended.IsZero() && instance != 0 && q.Approved == instance
}

// Greeting is what a node shows when it wants to link.
type Greeting struct {
	Leaf           []byte // its certificate, DER, that Verify has accepted
	Life           Life
	Addr, Software string
	Since          time.Time           // when its connection was accepted
	Followed       branchline.Position // how far the hub has followed the site's feed
	Linked         bool                // another link of the site is up
}

// Greet decides whether the node of a verified certificate may link, and remembers it, durably, if so. The errors
// are [ErrQuarantined], [ErrSuperseded], and [branchline.ErrBusy] for a node about which there is doubt and
// which is to come again. A node that does not tell its life is not compared with others, and waits while another
// one of its site is linked: so who hides it takes no link from a node that does not.
func (a *Authority) Greet(g Greeting) error {
	c, site, r, err := a.entry(g.Leaf)
	if err != nil {
		return err
	}
	s := sighting{
		Instance: g.Life.Instance, Opens: g.Life.Opens, Epoch: g.Life.Feed.Epoch, Seq: g.Life.Feed.Seq,
		Addr: g.Addr, Software: g.Software, At: a.clock.Now(),
	}
	if a.org == nil { // whose certificates may have new keys
		s.Key = hashOf(c.RawSubjectPublicKeyInfo)
	}
	seen, err := a.lastSeen(site)
	if err != nil {
		return fmt.Errorf("greet site %s: %w", site, err)
	}
	switch q := r.Quarantine; {
	case q != nil && q.Ended.IsZero():
		return a.held(r, s, ErrQuarantined)
	case q.lets(s.Instance):
		return a.remember(site, seen, s)
	case older(c, r):
		return a.held(r, s, ErrSuperseded)
	}
	if s.Instance == 0 && seen.Instance != 0 && g.Linked && bytes.Equal(seen.Key, s.Key) {
		return fmt.Errorf("site %s: another node of it is linked, and this one does not tell which it is: %w", site,
			branchline.ErrBusy)
	}
	cause := judge(seen, s, g)
	if cause != "" && !a.doubted(site, g.Since) {
		return fmt.Errorf("site %s: its node looks older than one that was here (%s); come again: %w", site, cause,
			branchline.ErrBusy)
	}
	if cause != "" {
		q := quarantine{Since: s.At, Cause: cause}
		return a.quarantine(site, q.note(seen).note(s))
	}
	if r.Quarantine != nil { // the approved node has come with a certificate of its own
		if err := a.change(site, func(r *record) error { r.Quarantine = nil; return nil }); err != nil {
			return fmt.Errorf("greet site %s: %w", site, err)
		}
	}
	return a.remember(site, seen, s)
}

// judge returns the cause for which the node that greets cannot be the successor of the one that was last let
// in, empty if it can. A restart has another instance and counts one up; a store that was replaced or rebuilt has
// another epoch; a hub that was restored from a backup knows less and finds nothing.
func judge(seen, now sighting, g Greeting) string {
	if now.Instance == 0 || seen.Instance == 0 || !bytes.Equal(seen.Key, now.Key) {
		return ""
	}
	same := now.Instance == seen.Instance
	if !same && now.Opens != 0 && seen.Opens != 0 && now.Opens <= seen.Opens {
		if g.Linked || now.At.Sub(seen.At) < hereWithin {
			return CauseDuplicate
		}
		return CauseRolledBack
	}
	// While another link of the same process is up, what it brought may be newer than this greeting.
	behind := now.Epoch != 0 && now.Epoch == g.Followed.Epoch && now.Seq < g.Followed.Seq
	if behind && (!same || !g.Linked) {
		return CauseRolledBack
	}
	return ""
}

// doubted notes a doubt about the site and reports whether there was one before the connection was made.
func (a *Authority) doubted(site branchline.SiteID, since time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first, ok := a.doubts[site]
	if now := a.clock.Now(); !ok || now.Sub(first) > doubtLife {
		a.doubts[site] = now
		return false
	}
	return since.After(first)
}

func (a *Authority) quarantine(site branchline.SiteID, q *quarantine) error {
	err := a.change(site, func(r *record) error {
		if r.Quarantine = q; !r.TokenUsed.IsZero() {
			r.TokenHash = nil // each of the nodes may have it, and their key is the one that it was used for
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("quarantine site %s: %w", site, err)
	}
	a.mu.Lock()
	delete(a.doubts, site)
	a.mu.Unlock()
	return fmt.Errorf("site %s: %w", site, ErrQuarantined)
}

// host returns an address without its port, which is another for each connection.
func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

// held notes that the node was there, for the operator who has to choose, and returns why. r is the site's entry as
// last read: whoever comes again and again has the file read and locked as seldom as written.
func (a *Authority) held(r record, s sighting, why error) error {
	if r.Quarantine.notes(s) {
		err := a.change(r.Name, func(r *record) error {
			if !r.Quarantine.notes(s) {
				return errUnchanged
			}
			r.Quarantine = r.Quarantine.note(s)
			return nil
		})
		if err != nil {
			return fmt.Errorf("note node of site %s: %w", r.Name, err)
		}
	}
	return fmt.Errorf("site %s: %w", r.Name, why)
}

// notes reports whether it is to be written down that the node has come; q may be nil.
func (q *quarantine) notes(s sighting) bool {
	if q == nil {
		return false
	}
	i := slices.IndexFunc(q.Nodes, func(o sighting) bool { return o.Instance == s.Instance })
	if i >= 0 {
		return host(q.Nodes[i].Addr) != host(s.Addr) || s.At.Sub(q.Nodes[i].At) >= seenAgain
	}
	since := s.At.Sub(q.Nodes[0].At)
	return since < 0 || since >= noteEvery
}

// lastSeen returns the node of the site that was last let in.
func (a *Authority) lastSeen(site branchline.SiteID) (sighting, error) {
	a.mu.Lock()
	s, ok := a.known[site]
	a.mu.Unlock()
	if ok {
		return s, nil
	}
	return a.readSeen(site)
}

// remember makes s the node that was last let in: durably, unless it is known already.
func (a *Authority) remember(site branchline.SiteID, seen, s sighting) error {
	if s.Instance == 0 {
		return nil
	}
	if s.Instance != seen.Instance || s.Opens != seen.Opens || !bytes.Equal(s.Key, seen.Key) {
		data, err := json.Marshal(s)
		if err == nil {
			err = writeFile(filepath.Join(a.dir, seenDir), seenFile(site), data)
		}
		if err != nil {
			return fmt.Errorf("remember node of site %s: %w", site, err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[site] = s
	return nil
}

func seenFile(site branchline.SiteID) string { return string(site) + ".json" }

func seenName(site branchline.SiteID) string { return filepath.Join(seenDir, seenFile(site)) }

// Good reports, by its error, whether a link that was let in may go on: certificate and instance as they were
// then. Its errors are those of [Authority.Verify] and [Authority.Greet].
func (a *Authority) Good(leaf []byte, instance uint64) error {
	if _, err := a.Verify(leaf); err != nil {
		return err
	}
	c, site, r, err := a.entry(leaf)
	switch {
	case err != nil:
		return err
	case r.Quarantine != nil && r.Quarantine.Ended.IsZero():
		return fmt.Errorf("site %s: %w", site, ErrQuarantined)
	case older(c, r) && !r.Quarantine.lets(instance):
		return fmt.Errorf("site %s: %w", site, ErrSuperseded)
	}
	return nil
}

// Due reports whether the node of a good certificate is to renew now: the certificate is of a former authority,
// or of nodes of which another is the approved one, or near its end.
func (a *Authority) Due(leaf []byte) bool {
	if a.org != nil {
		return false
	}
	c, _, r, err := a.entry(leaf)
	if err != nil {
		return false
	}
	by, err := a.present()
	if err != nil {
		return false
	}
	now := a.clock.Now()
	present, err := by.verify(c, now)
	life := c.NotAfter.Sub(c.NotBefore)
	late := now.Sub(c.NotBefore) > time.Duration(refreshShare*float64(life))
	return err == nil && (!present || late || older(c, r))
}

// entry returns a certificate's site and its entry.
func (a *Authority) entry(leaf []byte) (*x509.Certificate, branchline.SiteID, record, error) {
	c, err := x509.ParseCertificate(leaf)
	if err != nil {
		return nil, "", record{}, fmt.Errorf("read certificate: %w: %w", ErrForeign, err)
	}
	if a.org != nil {
		site, r, err := a.organisationEntry(c)
		return c, site, r, err
	}
	site, r, err := a.admitted(c)
	return c, site, r, err
}

// older reports whether a certificate is of the nodes of which another one was approved.
func older(c *x509.Certificate, r record) bool {
	if len(r.Barred) > 0 {
		return bytes.Equal(r.Barred, hashOf(c.Raw))
	}
	return generation(c) < r.Generation
}

// A certificate's generation stands in the serial number of its subject, empty for the first.
func generation(c *x509.Certificate) int {
	n, _ := strconv.Atoi(c.Subject.SerialNumber)
	return n
}

func generationText(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// change changes the site's entry, durably.
func (a *Authority) change(site branchline.SiteID, f func(*record) error) error {
	err := a.edit(func(sites []record) ([]record, error) {
		i, known := find(sites, site)
		if !known {
			return nil, branchline.ErrNotFound
		}
		return sites, f(&sites[i])
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// Approve lets a site come back: one that waits, or the node of a quarantined one that runs as the instance. An
// instance of 0 is the only node that is there. Its error wraps [branchline.ErrNotFound] for a site or instance
// that is not known, and [branchline.ErrInvalid] if there is nothing to approve or several are there.
func (a *Authority) Approve(site branchline.SiteID, instance uint64) error {
	now := a.clock.Now()
	err := a.change(site, func(r *record) error {
		switch {
		case r.Quarantine != nil:
			return a.approveNode(r, instance)
		case r.Waiting != nil:
			r.Waiting.Approved, r.Waiting.Refused = now, time.Time{}
			return nil
		case a.org != nil && !r.Revoked.IsZero():
			r.Revoked = time.Time{}
			return nil
		}
		return fmt.Errorf("it neither waits for approval nor is it quarantined: %w", branchline.ErrInvalid)
	})
	if err != nil {
		return fmt.Errorf("approve site %s: %w", site, err)
	}
	return nil
}

func (a *Authority) approveNode(r *record, instance uint64) error {
	now := a.clock.Now()
	var there []sighting
	for _, n := range r.Quarantine.Nodes {
		if n.Instance != 0 && (n.Instance == instance || instance == 0 && now.Sub(n.At) <= hereWithin) {
			there = append(there, n)
		}
	}
	switch {
	case len(there) == 0 && instance != 0:
		return fmt.Errorf("no node runs as instance %s: %w", InstanceText(instance), branchline.ErrNotFound)
	case len(there) == 0:
		return fmt.Errorf("none of its nodes came lately; name an instance: %w", branchline.ErrInvalid)
	case len(there) > 1:
		return fmt.Errorf("%d nodes are there; name the instance that is to go on: %w", len(there),
			branchline.ErrInvalid)
	}
	r.Quarantine.Ended, r.Quarantine.Approved = now, there[0].Instance
	if a.org != nil {
		r.Barred = r.Shown
		return nil
	}
	r.Generation++
	return nil
}

// InstanceText is an instance as people see it.
func InstanceText(instance uint64) string { return fmt.Sprintf("%016x", instance) }

// ParseInstance reads what InstanceText writes. Its error wraps [branchline.ErrInvalid].
func ParseInstance(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("read instance %.40q: it is 16 digits of 0-9 and a-f: %w", text, branchline.ErrInvalid)
	}
	return n, nil
}

// publicKey returns a certificate's key, nil if it is none of Ed25519.
func publicKey(c *x509.Certificate) ed25519.PublicKey {
	pub, _ := c.PublicKey.(ed25519.PublicKey)
	return pub
}
