package members

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"github.com/branchline-video/branchline/federation/link"
)

// pack makes one of memberlist's messages.
func pack(t testing.TB, kind byte, fields map[string]any) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteByte(kind)
	if err := codec.NewEncoder(&b, &codec.MsgpackHandle{}).Encode(fields); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func aliveOf(t testing.TB, name string, addr []byte) []byte {
	t.Helper()
	return pack(t, msgAlive, map[string]any{
		"Incarnation": 99, "Node": name, "Addr": addr, "Port": link.DefaultPort, "Vsn": []byte{1, 5, 2, 0, 0, 0},
	})
}

// TestScreen shows what of a packet from the site "mine" a hub passes on that knows it and "other".
func TestScreen(t *testing.T) {
	s := screen{known: func(n string) bool { return n == "mine" || n == "other" }, saw: func(byte, message) {}}
	ping := pack(t, msgPing, map[string]any{"SeqNo": 1, "Node": "other", "SourceNode": "mine"})
	other := aliveOf(t, "other", addrOf("other"))
	ghost := aliveOf(t, "ghost", addrOf("ghost"))
	for name, c := range map[string]struct{ packet, passes []byte }{
		"ping":                          {ping, ping},
		"ping as another":               {pack(t, msgPing, map[string]any{"Node": "other", "SourceNode": "other"}), nil},
		"indirect ping as another":      {pack(t, msgIndirectPing, map[string]any{"Node": "x", "SourceNode": "other"}), nil},
		"alive":                         {other, other},
		"alive of nobody known":         {ghost, nil},
		"alive with another's address":  {aliveOf(t, "other", addrOf("mine")), nil},
		"suspect":                       {pack(t, msgSuspect, map[string]any{"Node": "ghost", "From": "mine"}), nil},
		"dead":                          {pack(t, msgDead, map[string]any{"Node": "other", "From": "???"}), nil},
		"user message":                  {[]byte{8, 1, 2, 3}, nil},
		"compressed":                    {[]byte{9, 1, 2, 3}, nil},
		"encrypted":                     {[]byte{10, 1, 2, 3}, nil},
		"garbage":                       {[]byte{msgAlive, 0xc1, 0xff}, nil},
		"empty":                         {nil, nil},
		"compound":                      {join([][]byte{ping, other}), join([][]byte{ping, other})},
		"compound with a ghost":         {join([][]byte{ping, ghost}), join([][]byte{ping})},
		"compound in a compound":        {join([][]byte{join([][]byte{ghost})}), nil},
		"compound shorter than it says": {[]byte{msgCompound, 200, 0, 1}, nil},
		"checksum":                      {append([]byte{msgChecksum, 0, 0, 0, 0}, ping...), ping},
	} {
		if got := s.pass("mine", c.packet); !bytes.Equal(got, c.passes) {
			t.Errorf("%s: passes %q, want %q", name, got, c.passes)
		}
	}
}

// TestStreamHeads shows that a state is refused before memberlist makes room for it.
func TestStreamHeads(t *testing.T) {
	head := func(nodes, user int) []byte {
		return pack(t, msgPushPull, map[string]any{"Nodes": nodes, "UserStateLen": user, "Join": true})
	}
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"state": {head(500, 0), true}, "too many": {head(maxMembers+1, 0), false}, "user state": {head(1, 1<<20), false},
		"negative": {head(-1, 0), false}, "compressed": {[]byte{9, 1}, false}, "user message": {[]byte{8}, false},
	} {
		if err := checkHead(bytes.NewReader(c.b)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFlood has an enrolled site send everything that it should not, as fast as it can.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newCentre(t, "a", names(2)...)
		good, bad := newSite(t, "branch-000", 1, 0, hub), newSite(t, "branch-001", 2, 0, hub)
		pause(20 * time.Second)
		rogue, _ := bad.m.node("branch-001")
		by, _ := rogue.to(hub.name)
		for i := range 20_000 {
			ghost := fmt.Sprintf("ghost-%d", i)
			by[0].send(frame("", aliveOf(t, ghost, addrOf(ghost))))
			by[0].send(frame("branch-000", aliveOf(t, ghost, addrOf(ghost))))
			by[0].send(frame("branch-000", bytes.Repeat([]byte{msgCompound, 255}, 400)))
			if i%32 == 0 {
				pause(10 * time.Millisecond)
			}
		}
		pause(20 * time.Second)
		for _, m := range []*Members{hub.m, good.m} {
			m.mu.Lock()
			for _, n := range m.nodes {
				n.mu.Lock()
				for name := range n.facts {
					if strings.HasPrefix(name, "ghost") {
						t.Errorf("%s believes in %s", n.name, name)
					}
				}
				n.mu.Unlock()
			}
			m.mu.Unlock()
		}
		if st := hub.standing("branch-000"); st.State != Online {
			t.Errorf("the good site is %v", st)
		}
		s := good.m.Stats()
		t.Logf("the good site received %d packets, %d bytes; at the hub %d were refused, %d dropped",
			s.Received, s.ReceivedBytes, hub.m.Stats().Refused, hub.m.Stats().Dropped)
		if s.Received > 100 || hub.m.Stats().Dropped < 1000 {
			t.Error("the flood is not held back")
		}
		good.close(t)
		bad.close(t)
		hub.close()
	})
}

// TestOneWay cuts one direction of a link at a time.
func TestOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newCentre(t, "a", names(2)...), newCentre(t, "b", names(2)...)
		single := newSite(t, "branch-000", 1, 0, a, b)
		relay := newSite(t, "branch-001", 2, 0, a, b)
		pause(time.Minute)
		single.wires[0].cut(false, true) // what the hub sends is lost
		pause(15 * time.Second)
		if st := a.standing("branch-000"); st.State != OneWay && st.State != Unreachable {
			t.Errorf("a site that hears nothing of this hub is %v", st)
		}
		single.wires[0].cut(false, false)
		pause(time.Minute)
		if st := a.standing("branch-000"); st.State != Online {
			t.Errorf("the site is back, and %v", st)
		}
		single.wires[0].cut(true, false) // what the site sends is lost
		pause(15 * time.Second)
		if st := a.standing("branch-000"); st.State != OneWay || st.By != TheSite {
			t.Errorf("a site of which nothing arrives, and which says so through the other hub, is %v", st)
		}
		single.close(t)
		relay.close(t)
		a.close()
		b.close()
	})
}

// FuzzScreen shows that no packet makes the screen panic or pass what memberlist should not read.
func FuzzScreen(f *testing.F) {
	f.Add(aliveOf(f, "other", addrOf("other")))
	f.Add(join([][]byte{pack(f, msgPing, map[string]any{"Node": "other", "SourceNode": "mine"})}))
	f.Add([]byte{msgCompound, 3, 0, 1, 0, 1, 0xff, 0xff, 2, 11})
	f.Add([]byte{msgChecksum, 0, 0, 0, 0, msgCompound, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := screen{known: func(n string) bool { return n == "other" }, saw: func(_ byte, m message) {
			if m.Node != "other" {
				t.Errorf("saw %q", m.Node)
			}
		}}
		if out := s.pass("mine", b); len(out) > len(b) {
			t.Errorf("%d bytes of %d", len(out), len(b))
		}
		_, _, _ = unframe(b)
		_ = decodeWord(b).encode()
		_ = checkHead(bytes.NewReader(b))
	})
}
