package identity

import (
	"crypto/x509"
	"strings"
)

// LooksLikeHub reports whether a certificate says that some hub's own authority made it for a hub. It proves
// nothing: it tells another hub's certificate, which an operator expects after a hub was set up anew, from
// those of devices that intercept connections.
func LooksLikeHub(c *x509.Certificate) bool {
	return len(c.URIs) == 1 && strings.HasPrefix(c.URIs[0].String(), hubURI) && c.Issuer.CommonName == authorityName
}
