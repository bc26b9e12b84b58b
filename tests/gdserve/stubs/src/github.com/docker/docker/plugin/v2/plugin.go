// Package v2 stands in for Docker's managed plugins, which Debian leaves out of its source package.
// graphdriver/plugin.go names the type; nothing here makes one.
package v2

import (
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/pkg/plugingetter"
)

// Plugin is a managed plugin.
type Plugin struct {
	plugingetter.CompatPlugin
	PluginObj types.Plugin
}
