// Package v2 replaces Docker's managed plugins, which Debian's source package does not contain.
// graphdriver/plugin.go names the type; it is not instantiated here.
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
