package api

import (
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// page serves the console. Files under assets/ carry a hash of their content in their names and are
// kept by browsers for ever; every path that is no file is a view of the console and answers index.html.
func (a *API) page(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		a.fail(w, r, errNoPath)
		return
	}
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if info, err := fs.Stat(a.Page, name); err != nil || info.IsDir() {
		if strings.HasPrefix(name, "assets/") || path.Ext(name) != "" {
			http.NotFound(w, r)
			return
		}
		name = "index.html"
	}
	if strings.HasPrefix(name, "assets/") {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("Cache-Control", "no-cache")
	}
	file, err := a.Page.Open(name)
	if err != nil {
		http.Error(w, "The console is not part of this binary: it was compiled before the console was built.",
			http.StatusServiceUnavailable)
		return
	}
	file.Close()
	if name == "index.html" { // http.ServeFileFS would redirect to "./"
		r.URL.Path = "/"
	}
	http.ServeFileFS(w, r, a.Page, name)
}
