package api_test

import (
	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub"
	"github.com/branchline-video/branchline/hub/api"
)

// A hub's node is what the API takes it for.
var (
	_ api.Hub           = (*hub.Node)(nil)
	_ branchline.Source = (*hub.Node)(nil)
)
