package web

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Page returns the built console with index.html at its root. Files under assets/ carry a hash of
// their content in their names and never change. Opening index.html reports [fs.ErrNotExist] when the
// console was not built before the binary was.
func Page() fs.FS {
	page, err := fs.Sub(dist, "dist")
	if err != nil {
		return dist // unreachable: the name is constant and valid
	}
	return page
}
