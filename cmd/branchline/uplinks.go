package main

import (
	"fmt"
	"net/netip"

	"github.com/branchline-video/branchline/federation/link"
)

// wayFile is one of the ways by which an edge reaches the network.
type wayFile struct {
	Name      string `yaml:"name"`
	Interface string `yaml:"interface"`
	Address   string `yaml:"address"`
	Kind      string `yaml:"kind"`
}

// maxInterface is how long Linux lets an interface's name be.
const maxInterface = 15

// checkUplinks returns the uplinks that the files describe.
func checkUplinks(files []wayFile) ([]link.Uplink, error) {
	if len(files) > link.MaxUplinks {
		return nil, wrong("$.uplinks", "%d of them, at most %d", len(files), link.MaxUplinks)
	}
	var all []link.Uplink
	seen := map[string]int{}
	for i, f := range files {
		at := fmt.Sprintf("$.uplinks[%d]", i)
		l, err := f.uplink(at)
		if err != nil {
			return nil, err
		}
		if first, twice := seen[l.Name]; twice {
			return nil, wrong(at+".name", "uplink %q is already number %d of this list", l.Name, first+1)
		}
		seen[l.Name] = i
		all = append(all, l)
	}
	return all, nil
}

func (f wayFile) uplink(at string) (l link.Uplink, err error) {
	l = link.Uplink{Local: link.Local{Name: f.Name, Device: f.Interface}, Kind: link.UplinkKind(f.Kind)}
	if l.Name == "" || len(l.Name) > 40 {
		return l, wrong(at+".name", "give it a name of 1 to 40 bytes, for example fibre")
	}
	if (f.Interface == "") == (f.Address == "") {
		return l, wrong(at, "say either its interface, for example eth0, or an address of this machine there")
	}
	if len(f.Interface) > maxInterface {
		return l, wrong(at+".interface", "%q is no interface: its name is longer than %d bytes", f.Interface, maxInterface)
	}
	if f.Address != "" {
		if l.Addr, err = netip.ParseAddr(f.Address); err != nil || l.Addr.IsUnspecified() || l.Addr.IsMulticast() {
			return l, wrong(at+".address", "%q is no address of an interface: write for example 192.168.1.10", f.Address)
		}
	}
	switch l.Kind {
	case "":
		l.Kind = link.UplinkBoth
	case link.UplinkPrefer, link.UplinkBoth, link.UplinkStandby, link.UplinkMetered:
	default:
		return l, wrong(at+".kind", "%q is no kind: write prefer, both, standby or metered", f.Kind)
	}
	return l, nil
}
