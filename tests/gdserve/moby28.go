//go:build moby28

// Docker 28.5.
package main

import (
	"github.com/docker/docker/daemon/graphdriver"
	"github.com/moby/sys/reexec"
	"github.com/moby/sys/user"
)

func start(init graphdriver.InitFunc, r request) (graphdriver.Driver, error) {
	return init(r.Home, r.Opts, user.IdentityMapping{UIDMaps: maps(r.UIDMaps), GIDMaps: maps(r.GIDMaps)})
}

func maps(ranges []idRange) (found []user.IDMap) {
	for _, one := range ranges {
		found = append(found, user.IDMap{
			ID: int64(one.ContainerID), ParentID: int64(one.HostID), Count: int64(one.Size)})
	}
	return found
}

func get(d graphdriver.Driver, id, label string) (string, error) { return d.Get(id, label) }

func isReexec() bool { return reexec.Init() }
