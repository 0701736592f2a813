package link

import (
	"net"
	"testing"
)

// TestNames shows that what a name stood for is used while no name server tells otherwise.
func TestNames(t *testing.T) {
	var n Names
	if ips, err := n.lookup(t.Context(), "10.1.2.3"); err != nil || len(ips) != 1 || n.get("10.1.2.3") != nil {
		t.Errorf("a number: %v, %v", ips, err)
	}
	const nobody = "no-such-hub.invalid"
	if ips, err := n.lookup(t.Context(), nobody); err == nil {
		t.Errorf("a name that stands for nothing: %v", ips)
	}
	n.put(nobody, []net.IPAddr{{IP: net.IPv4(10, 1, 2, 3)}})
	ips, err := n.lookup(t.Context(), nobody)
	if err != nil || len(ips) != 1 || !ips[0].IP.Equal(net.IPv4(10, 1, 2, 3)) {
		t.Errorf("a name that stood for something: %v, %v", ips, err)
	}
	for range 2 * maxNames {
		n.put(string(rune('a'+len(n.known)))+".example", ips)
	}
	if len(n.known) > maxNames {
		t.Errorf("%d names are kept", len(n.known))
	}
}
