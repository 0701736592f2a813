package branchline

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// MaxLabel bounds one label of an identifier, so that any path of a segment file stays short.
const MaxLabel = 40

// MaxID bounds a whole identifier: five labels, which is three tiers of hubs above a camera.
const MaxID = 5*MaxLabel + 4

// SiteID names a branch, as in its certificate: one label, or a path of labels under stacked hubs.
type SiteID string

// CameraID names a camera: "entrance" at its edge, "berlin.entrance" at the hub.
type CameraID string

// StreamID names one feed of a camera: its CameraID and the feed's label, "entrance.main".
type StreamID string

// Branch returns the site at which the camera is: all labels but the last, which is a path if hubs are
// stacked; empty at the site itself.
func (c CameraID) Branch() SiteID { return SiteID(c[:max(strings.LastIndexByte(string(c), '.'), 0)]) }

// Way returns the sites on the way to s, from the one that is linked to the hub to s itself: "region" and
// "region.berlin".
func (s SiteID) Way() []SiteID {
	var way []SiteID
	for i, r := range s {
		if r == '.' {
			way = append(way, s[:i])
		}
	}
	return append(way, s)
}

// Under returns the site's identifier one tier up, at the hub to which the hub over it is linked.
func (s SiteID) Under(hub SiteID) SiteID { return hub + "." + s }

// Stream returns the identifier of the camera's feed with the given label.
func (c CameraID) Stream(label string) StreamID { return StreamID(string(c) + "." + label) }

// Under returns the camera's identifier one tier up, at the hub to which site is linked.
func (c CameraID) Under(site SiteID) CameraID { return CameraID(string(site) + "." + string(c)) }

// Site returns the first label, which at a hub is the linked site's name.
func (c CameraID) Site() SiteID { first, _, _ := strings.Cut(string(c), "."); return SiteID(first) }

// Camera returns the camera of which s is a feed.
func (s StreamID) Camera() CameraID {
	return CameraID(s[:max(strings.LastIndexByte(string(s), '.'), 0)])
}

// Label returns the feed's own label, such as "main".
func (s StreamID) Label() string { return string(s[strings.LastIndexByte(string(s), '.')+1:]) }

// Site returns the first label, which at a hub is the linked site's name.
func (s StreamID) Site() SiteID { return s.Camera().Site() }

// Under returns the stream's identifier one tier up, at the hub to which site is linked.
func (s StreamID) Under(site SiteID) StreamID { return StreamID(string(site) + "." + string(s)) }

// Within returns the stream's identifier one tier down, as the site itself calls it, and whether the
// stream belongs to that site at all.
func (s StreamID) Within(site SiteID) (StreamID, bool) {
	rest, ok := strings.CutPrefix(string(s), string(site)+".")
	return StreamID(rest), ok
}

// Check returns an error wrapping [ErrInvalid] unless s is one well-formed label or a path of them.
func (s SiteID) Check() error { return checkPath("site", string(s), 1) }

// Check returns an error wrapping [ErrInvalid] unless c is a well-formed path of labels.
func (c CameraID) Check() error { return checkPath("camera", string(c), 1) }

// Check returns an error wrapping [ErrInvalid] unless s names a camera and a feed.
func (s StreamID) Check() error { return checkPath("stream", string(s), 2) }

func checkPath(what, path string, atLeast int) error {
	labels := strings.Split(path, ".")
	if len(path) > MaxID || len(labels) < atLeast {
		return fmt.Errorf("check %s name %.80q: %w", what, path, ErrInvalid)
	}
	for _, l := range labels {
		if !validLabel(l) {
			return fmt.Errorf("check %s name %.80q: labels are 1 to %d of a-z, 0-9 and inner '-': %w",
				what, path, MaxLabel, ErrInvalid)
		}
	}
	return nil
}

func validLabel(l string) bool {
	if l == "" || len(l) > MaxLabel || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	return strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// SegmentID identifies a segment on every node: a UUID of version 7 (RFC 9562, section 5.7), so
// that identifiers made later sort later.
type SegmentID [16]byte

// NewSegmentID returns a fresh identifier for a segment that starts at t.
func NewSegmentID(t time.Time) SegmentID {
	var id SegmentID
	rand.Read(id[6:])
	ms := uint64(t.UnixMilli())
	binary.BigEndian.PutUint16(id[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(ms))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseSegmentID reads what String writes: 32 hexadecimal digits. Its error wraps [ErrInvalid].
func ParseSegmentID(s string) (SegmentID, error) {
	var id SegmentID
	if n, err := hex.Decode(id[:], []byte(s)); len(s) != 32 || err != nil || n != len(id) {
		return SegmentID{}, fmt.Errorf("parse segment id %.80q: %w", s, ErrInvalid)
	}
	return id, nil
}

// String returns 32 hexadecimal digits.
func (id SegmentID) String() string { return hex.EncodeToString(id[:]) }

// Hash is a SHA-256 digest.
type Hash [32]byte

// String returns 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }
