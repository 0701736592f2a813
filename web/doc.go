// Package web holds the operator console: the page that Vite builds into dist, embedded in the binary.
//
// The page is whatever stood in dist when the binary was compiled. A checkout in which the console was
// never built compiles all the same, with a file system in which index.html does not exist. The page
// asks nothing of any other host: a policy of "default-src 'self'" with blob: media is enough for it.
package web
