//go:build moby26

// Docker 26.1.
package main

import (
	"github.com/docker/docker/daemon/graphdriver"
	"github.com/docker/docker/pkg/idtools"
	"github.com/docker/docker/pkg/reexec"
)

func start(init graphdriver.InitFunc, r request) (graphdriver.Driver, error) {
	return init(r.Home, r.Opts, idtools.IdentityMapping{UIDMaps: maps(r.UIDMaps), GIDMaps: maps(r.GIDMaps)})
}

func maps(ranges []idRange) (found []idtools.IDMap) {
	for _, one := range ranges {
		found = append(found, idtools.IDMap(one))
	}
	return found
}

func get(d graphdriver.Driver, id, label string) (string, error) { return d.Get(id, label) }

func isReexec() bool { return reexec.Init() }
