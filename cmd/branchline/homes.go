package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/internal/clock"
)

// maxHomes bounds the hubs of one node: each sends over the same uplink.
const maxHomes = 4

// homeFile is a hub to which a node is homed, under the name that the node has for it.
type homeFile struct {
	Name      string   `yaml:"name"`
	Addresses []string `yaml:"addresses"` // host:port; none: those of the token
}

func checkHomes(at string, homes []homeFile) error {
	if len(homes) > maxHomes {
		return wrong(at, "%d hubs, at most %d", len(homes), maxHomes)
	}
	for i, h := range homes {
		here := fmt.Sprintf("%s[%d]", at, i)
		if err := branchline.SiteID(h.Name).Check(); err != nil || strings.Contains(h.Name, ".") {
			return wrong(here+".name", "%q is no name for a hub: use a-z, 0-9 and inner '-', at most %d", h.Name,
				branchline.MaxLabel)
		}
		if slices.ContainsFunc(homes[:i], func(o homeFile) bool { return o.Name == h.Name }) {
			return wrong(here+".name", "hub %q is already in this list", h.Name)
		}
		if len(h.Addresses) > identity.MaxHubs {
			return wrong(here+".addresses", "%d addresses, at most %d", len(h.Addresses), identity.MaxHubs)
		}
		for k, a := range h.Addresses {
			if err := checkAddress(fmt.Sprintf("%s.addresses[%d]", here, k), a); err != nil {
				return err
			}
		}
	}
	return nil
}

// home is a hub to which a node is homed. Its name is empty if it is the only one and has none.
type home struct {
	name, token string
	hubs        []string
}

// homesOf joins the hubs of a configuration with the flags --token and --hub, of which each value may begin
// with the name of a hub and an equals sign and otherwise is for the first.
func homesOf(file []homeFile, tokens, addresses []string) ([]home, error) {
	homes := []home{{}}
	if len(file) > 0 {
		homes = nil
	}
	for _, f := range file {
		homes = append(homes, home{name: f.Name, hubs: f.Addresses})
	}
	for _, t := range tokens {
		if t == "" { // an empty variable of the environment
			continue
		}
		h, token, err := named(homes, "--token", t)
		if err != nil {
			return nil, err
		}
		if _, err := identity.ParseToken(token); err != nil {
			return nil, usageError{fmt.Errorf("--token: %w", err)}
		}
		h.token = token
	}
	given := make(map[*home]bool) // flags take the place of the file
	for _, a := range addresses {
		h, address, err := named(homes, "--hub", a)
		if err != nil {
			return nil, err
		}
		if !given[h] {
			h.hubs, given[h] = nil, true
		}
		h.hubs = append(h.hubs, address)
	}
	return homes, nil
}

func named(homes []home, flag, value string) (*home, string, error) {
	name, rest, ok := strings.Cut(value, "=")
	if !ok {
		return &homes[0], value, nil
	}
	for i := range homes {
		if homes[i].name == name {
			return &homes[i], rest, nil
		}
	}
	return nil, "", usageError{fmt.Errorf("%s: no hub %q is in the configuration's list of hubs", flag, name)}
}

// uplink is a branch's link to one of its hubs.
type uplink struct {
	*federation.Uplink

	name   string
	linked bool // it has enrolled, or has a token for that
}

// openUplinks opens the identity towards each of the hubs. One that is not usable costs its own link only.
func openUplinks(b *branch, c branchConfig) ([]uplink, error) {
	homes := c.homes
	if len(homes) == 0 {
		homes = []home{{token: c.token, hubs: c.hubs}}
	}
	first, err := firstHome(b.identity, homes)
	if err != nil {
		return nil, err
	}
	restorer := federation.ShareRestorer(b.node)
	var all []uplink
	for _, h := range homes {
		id, called, log := b.identity, "", c.log
		if h.name != "" {
			log = c.log.With("to", h.name)
		}
		if h.name != first {
			called = h.name
			if id, err = b.identity.Further(h.name, clock.Clock{}); err != nil {
				log.Error("no link to this hub", "error", err)
				continue
			}
		}
		if err := id.CountOpen(filepath.Join(c.dir, "store")); err != nil {
			log.Warn("the hub cannot tell this edge from a copy of it; recording goes on", "error", err)
		}
		all = append(all, uplink{name: h.name, linked: id.Site() != "" || h.token != "" || id.Organisation(),
			Uplink: federation.NewUplink(federation.UplinkConfig{
				Node: id, Source: b.node, Name: called, Budget: b.budget, Members: b.members, Restore: restorer,
				Feed: b.node.Store().Head, Hubs: h.hubs, Token: h.token, Software: "branchline " + version,
				ListenPacket: c.listen, Uplinks: c.uplinks, Tap: b.qlog.Tap(tapName(h.name)), Logger: log,
			})})
	}
	return all, nil
}

func firstHome(who *identity.Node, homes []home) (string, error) {
	if homes[0].name == "" {
		return "", nil
	}
	names := make([]string, len(homes))
	for i, h := range homes {
		names[i] = h.name
	}
	return who.FirstHub(names)
}

// above returns the hubs above a hub.
func (c *hubFile) above(tokens, addresses []string) ([]hub.Above, error) {
	if len(c.Hubs) == 0 {
		if len(tokens)+len(addresses) > 0 {
			return nil, usageError{errors.New("--token and --hub are for a hub above this one: name it in the " +
				"configuration, hubs: [{name: headquarters}]")}
		}
		return nil, nil
	}
	homes, err := homesOf(c.Hubs, tokens, addresses)
	if err != nil {
		return nil, err
	}
	var all []hub.Above
	for _, h := range homes {
		all = append(all, hub.Above{Name: h.name, Hubs: h.hubs, Token: h.token})
	}
	return all, nil
}

// called is how the hub names itself to other hubs: as configured, or as its machine.
func (c *hubFile) called() string {
	name, err := os.Hostname()
	if c.Name != "" || err != nil {
		return c.Name
	}
	return name
}
