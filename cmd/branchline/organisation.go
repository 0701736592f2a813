package main

import (
	"github.com/branchline-video/branchline/federation"
	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/hub/access"
)

// hubAuthorityFile names the files by which a hub uses the organisation's authority instead of its own.
type hubAuthorityFile struct {
	Certificate string    `yaml:"certificate"` // the hub's own, with intermediates
	Key         string    `yaml:"key"`
	Clients     string    `yaml:"clients"` // who issues the sites' certificates
	Site        *nameFile `yaml:"site"`
}

// edgeIdentityFile is the same for an edge.
type edgeIdentityFile struct {
	Certificate string    `yaml:"certificate"`
	Key         string    `yaml:"key"`
	Authority   string    `yaml:"authority"` // who issues the hub's certificate
	Site        *nameFile `yaml:"site"`
}

// nameFile says how a certificate names a site.
type nameFile struct {
	Field  string `yaml:"field"` // uri, dns or cn
	Prefix string `yaml:"prefix"`
	Suffix string `yaml:"suffix"`
}

func (f *nameFile) rule() identity.NameRule {
	if f == nil {
		return identity.NameRule{}
	}
	return identity.NameRule{Field: f.Field, Prefix: f.Prefix, Suffix: f.Suffix}
}

func (f *nameFile) check(at string) error {
	if err := f.rule().Check(); err != nil {
		return wrong(at+".field", "%q is none of uri, dns, cn", f.Field)
	}
	return nil
}

// filesGiven checks that no file of a set is left out. Names and values take turns.
func filesGiven(at string, namesAndValues ...string) error {
	for i := 0; i < len(namesAndValues); i += 2 {
		if namesAndValues[i+1] == "" {
			return wrong(at, "needs %s, the path of a PEM file", namesAndValues[i])
		}
	}
	return nil
}

func (f *hubAuthorityFile) check(at string) error {
	if f == nil {
		return nil
	}
	if err := filesGiven(at, "certificate", f.Certificate, "key", f.Key, "clients", f.Clients); err != nil {
		return err
	}
	return f.Site.check(at + ".site")
}

func (f *edgeIdentityFile) check(at string) error {
	if f == nil {
		return nil
	}
	if err := filesGiven(at, "certificate", f.Certificate, "key", f.Key, "authority", f.Authority); err != nil {
		return err
	}
	return f.Site.check(at + ".site")
}

// organisation says where the certificates are, nil if the hub has its own authority.
func (c centreConfig) organisation() *identity.Organisation {
	if c.Authority == nil {
		return nil
	}
	return &identity.Organisation{
		Certificate: c.Authority.Certificate, Key: c.Authority.Key, Authorities: c.Authority.Clients,
		Name: c.Authority.Site.rule(),
	}
}

func (f *edgeIdentityFile) organisation() *identity.Organisation {
	if f == nil {
		return nil
	}
	return &identity.Organisation{
		Certificate: f.Certificate, Key: f.Key, Authorities: f.Authority, Name: f.Site.rule(),
	}
}

// denied enters a call that is not a site's to make in the audit log. Links come only when that is open.
func (h *centre) denied(d federation.Denial) {
	err := h.access.RecordDenied(access.SiteDenied{
		Site: string(d.Site), Address: d.Addr, Call: d.Call, Object: d.Object, Reason: d.Err, Missed: d.Missed,
	})
	if err != nil {
		h.log.Error("a denied call of a site is not in the audit log", "site", d.Site, "call", d.Call, "error", err)
	}
}
