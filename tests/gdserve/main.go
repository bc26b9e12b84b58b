// gdserve serves one of Docker's own storage drivers on a plugin socket, so that the suite can test
// it: gdserve overlay2|vfs|btrfs|fuse-overlayfs [SOCKET]; without SOCKET, $GRAPHDRIVER_SOCKET.
//
// It does not change the behaviour of the driver. Differences between the versions of Docker are in
// moby20.go, moby26.go and moby28.go, of which one is compiled.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/docker/docker/daemon/graphdriver"
	"github.com/docker/docker/daemon/graphdriver/btrfs"
	fuseoverlayfs "github.com/docker/docker/daemon/graphdriver/fuse-overlayfs"
	"github.com/docker/docker/daemon/graphdriver/overlay2"
	"github.com/docker/docker/daemon/graphdriver/vfs"
)

// kind is a driver: its constructor, and its claims (graphdriver.contract.Capability).
type kind struct {
	init   graphdriver.InitFunc
	claims []string
	limit  int
}

// The claims of all drivers. pkg/archive of 20.10 preserves no user.* attributes and no ACLs, fills
// holes and truncates mtimes to seconds. Debian's source supports quotas for btrfs only.
var always = []string{"idmap", "restartable", "root_metadata", "hardlink_identity", "flattened_diff",
	"changes", "diff_size", "home"}

var kinds = map[string]kind{
	"overlay2": {overlay2.Init, append([]string{"mounting", "overlay2_layout", "layer_limit",
		"mount_label"}, always...), 128},
	"vfs":            {vfs.Init, append([]string{"lower_symlinks"}, always...), 0},
	"btrfs":          {btrfs.Init, append([]string{"lower_symlinks", "quota"}, always...), 0},
	"fuse-overlayfs": {fuseoverlayfs.Init, append([]string{"mounting", "layer_limit"}, always...), 128},
}

// idRange is an entry of an id map, as Docker sends it.
type idRange struct {
	ContainerID int `json:"container_id"`
	HostID      int `json:"host_id"`
	Size        int `json:"size"`
}

// request has every field of every call (daemon/graphdriver/proxy.go).
type request struct {
	Home             string
	Opts             []string
	UIDMaps, GIDMaps []idRange
	ID, Parent       string
	MountLabel       string
	StorageOpt       map[string]string
}

type answer map[string]interface{}

// plugin has the driver that the last Init created.
type plugin struct {
	kind   kind
	driver atomic.Value
}

type holder struct{ graphdriver.Driver }

var errNoInit = errors.New("call GraphDriver.Init first")

func (p *plugin) current() (graphdriver.Driver, error) {
	if held, ok := p.driver.Load().(holder); ok {
		return held.Driver, nil
	}
	return nil, errNoInit
}

type verb func(graphdriver.Driver, request) (answer, error)

var verbs = map[string]verb{
	"Create": func(d graphdriver.Driver, r request) (answer, error) {
		return answer{}, d.Create(r.ID, r.Parent, options(r))
	},
	"CreateReadWrite": func(d graphdriver.Driver, r request) (answer, error) {
		return answer{}, d.CreateReadWrite(r.ID, r.Parent, options(r))
	},
	"Remove": func(d graphdriver.Driver, r request) (answer, error) { return answer{}, d.Remove(r.ID) },
	"Put":    func(d graphdriver.Driver, r request) (answer, error) { return answer{}, d.Put(r.ID) },
	"Get": func(d graphdriver.Driver, r request) (answer, error) {
		dir, err := get(d, r.ID, r.MountLabel)
		return answer{"Dir": dir}, err
	},
	"Exists": func(d graphdriver.Driver, r request) (answer, error) {
		return answer{"Exists": d.Exists(r.ID)}, nil
	},
	"Status": func(d graphdriver.Driver, _ request) (answer, error) {
		return answer{"Status": d.Status()}, nil
	},
	"GetMetadata": func(d graphdriver.Driver, r request) (answer, error) {
		found, err := d.GetMetadata(r.ID)
		return answer{"Metadata": found}, err
	},
	"Cleanup": func(d graphdriver.Driver, _ request) (answer, error) { return answer{}, d.Cleanup() },
	"Changes": func(d graphdriver.Driver, r request) (answer, error) {
		found, err := d.Changes(r.ID, r.Parent)
		if found == nil {
			return answer{"Changes": []string{}}, err
		}
		return answer{"Changes": found}, err
	},
	"DiffSize": func(d graphdriver.Driver, r request) (answer, error) {
		size, err := d.DiffSize(r.ID, r.Parent)
		return answer{"Size": size}, err
	},
}

func options(r request) *graphdriver.CreateOpts {
	return &graphdriver.CreateOpts{MountLabel: r.MountLabel, StorageOpt: r.StorageOpt}
}

func (p *plugin) init(_ graphdriver.Driver, r request) (answer, error) {
	made, err := start(p.kind.init, r)
	if err == nil {
		p.driver.Store(holder{made})
	}
	return answer{}, err
}

func (p *plugin) capabilities(graphdriver.Driver, request) (answer, error) {
	return answer{"Capabilities": map[string]bool{"ReproducesExactDiffs": false},
		"Claims": p.kind.claims, "LayerLimit": p.kind.limit}, nil
}

func activate(graphdriver.Driver, request) (answer, error) {
	return answer{"Implements": []string{"GraphDriver"}}, nil
}

// handle answers a verb; the driver is nil for verbs that do not need one.
func (p *plugin) handle(call verb, needsDriver bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, ok := read(w, r)
		if !ok {
			return
		}
		driver, err := p.current()
		if err != nil && needsDriver {
			fail(w, http.StatusInternalServerError, err)
			return
		}
		said, err := call(driver, body)
		if err != nil {
			fail(w, http.StatusInternalServerError, err)
			return
		}
		reply(w, http.StatusOK, said)
	}
}

func (p *plugin) diff(w http.ResponseWriter, r *http.Request) {
	body, ok := read(w, r)
	if !ok {
		return
	}
	driver, err := p.current()
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	stream, err := driver.Diff(body.ID, body.Parent)
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	defer stream.Close()
	if _, err := io.Copy(w, stream); err != nil {
		panic(http.ErrAbortHandler) // no last chunk: half an archive must not look whole
	}
}

func (p *plugin) applyDiff(w http.ResponseWriter, r *http.Request) {
	driver, err := p.current()
	var size int64
	if err == nil {
		query := r.URL.Query()
		size, err = driver.ApplyDiff(query.Get("id"), query.Get("parent"), r.Body)
	}
	// The rest is read in every case; a truncated body is an error.
	if _, rest := io.Copy(io.Discard, r.Body); err == nil {
		err = rest
	}
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	reply(w, http.StatusOK, answer{"Size": size})
}

func read(w http.ResponseWriter, r *http.Request) (request, bool) {
	var body request
	err := json.NewDecoder(r.Body).Decode(&body)
	if err != nil && err != io.EOF { // Plugin.Activate comes without a body
		fail(w, http.StatusBadRequest, err)
		return body, false
	}
	return body, true
}

func fail(w http.ResponseWriter, status int, err error) {
	reply(w, status, answer{"Err": err.Error()})
}

func reply(w http.ResponseWriter, status int, said answer) {
	w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(said)
}

func serve(p *plugin, path string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/Plugin.Activate", p.handle(activate, false))
	mux.HandleFunc("/GraphDriver.Init", p.handle(p.init, false))
	mux.HandleFunc("/GraphDriver.Capabilities", p.handle(p.capabilities, false))
	mux.HandleFunc("/GraphDriver.Diff", p.diff)
	mux.HandleFunc("/GraphDriver.ApplyDiff", p.applyDiff)
	for name, call := range verbs {
		mux.HandleFunc("/GraphDriver."+name, p.handle(call, true))
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		_ = server.Shutdown(context.Background())
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func main() {
	// Docker's drivers execute their own program again, to unpack and to mount.
	if isReexec() {
		return
	}
	path := os.Getenv("GRAPHDRIVER_SOCKET")
	if len(os.Args) > 2 {
		path = os.Args[2]
	}
	var chosen kind
	known := false
	if len(os.Args) > 1 {
		chosen, known = kinds[os.Args[1]]
	}
	if !known || path == "" {
		fmt.Fprintln(os.Stderr, "usage: gdserve overlay2|vfs|btrfs|fuse-overlayfs [SOCKET]")
		os.Exit(2)
	}
	if err := serve(&plugin{kind: chosen}, path); err != nil {
		log.Fatal(err)
	}
}
