// Package ui carries the built web front end: home.html, event.html, studio.html, operator.html, docs.html and 404.html,
// and assets/* under names that hash their content, each with a .br and a .gz sibling made at build time. What stands in
// dist comes from `npm run build` here; in a tree where that has not run, FS holds no page.
package ui

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// FS gives the built files, rooted at the folder in which home.html stands.
func FS() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // only a malformed path fails, and this one is constant
	}
	return sub
}
