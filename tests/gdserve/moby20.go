//go:build moby20

// Docker 20.10.
package main

import (
	"github.com/docker/docker/daemon/graphdriver"
	"github.com/docker/docker/pkg/idtools"
	"github.com/docker/docker/pkg/reexec"
)

func start(init graphdriver.InitFunc, r request) (graphdriver.Driver, error) {
	return init(r.Home, r.Opts, maps(r.UIDMaps), maps(r.GIDMaps))
}

func maps(ranges []idRange) (found []idtools.IDMap) {
	for _, one := range ranges {
		found = append(found, idtools.IDMap(one))
	}
	return found
}

func get(d graphdriver.Driver, id, label string) (string, error) {
	dir, err := d.Get(id, label)
	if err != nil {
		return "", err
	}
	return dir.Path(), nil
}

func isReexec() bool { return reexec.Init() }
