package federation

import (
	"crypto/ed25519"

	"github.com/branchline-video/branchline"
	wire "github.com/branchline-video/branchline/proto"
)

// encodeBelow encodes the changes that only a hub tells the hubs above it.
func encodeBelow(w *wire.Change, c branchline.Change) {
	switch {
	case c.Recorded != nil:
		w.What = &wire.Change_Recorded{Recorded: &wire.Recorded{
			Stream: string(c.Recorded.Stream), Span: encodeRange(c.Recorded.Span),
		}}
	case c.Site != nil:
		l := &wire.SiteLink{Site: string(c.Site.Site), Linked: c.Site.Linked, SinceNs: encodeTime(c.Site.Since)}
		for _, key := range c.Site.Keys {
			l.Keys = append(l.Keys, key)
		}
		w.What = &wire.Change_Site{Site: l}
	}
}

func decodeBelow(c *branchline.Change, w *wire.Change) error {
	switch what := w.GetWhat().(type) {
	case *wire.Change_Recorded:
		r := what.Recorded
		c.Recorded = &branchline.Recorded{Stream: branchline.StreamID(r.GetStream()), Span: decodeRange(r.GetSpan())}
		return c.Recorded.Stream.Check()
	case *wire.Change_Site:
		l := what.Site
		c.Site = &branchline.SiteLink{
			Site: branchline.SiteID(l.GetSite()), Linked: l.GetLinked(), Since: decodeTime(l.GetSinceNs()),
		}
		if len(l.GetKeys()) > branchline.MaxKeys {
			return invalid("%d keys of a site", len(l.GetKeys()))
		}
		for _, key := range l.GetKeys() {
			if len(key) != ed25519.PublicKeySize {
				return invalid("key of %d bytes", len(key))
			}
			c.Site.Keys = append(c.Site.Keys, key)
		}
		return c.Site.Site.Check()
	}
	return nil
}
