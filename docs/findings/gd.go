// gd calls the verbs of one of Docker's storage drivers, one after the other, in one process:
//
//	gd overlay2|vfs|fuse-overlayfs HOME VERB ARGUMENT... [-- VERB ARGUMENT...]...
//
// create ID [PARENT], get ID, put ID, remove ID, exists ID, cleanup, diff ID [PARENT] (to standard
// output), apply ID [PARENT] (from standard input). Each process is one life of a daemon: cleanup is
// called only where it is asked for. Built by tests/gdserve/build OUT ROOT docs/findings/gd.go
// against Docker 20.10, 26.1 and 28.5, whose Init and Get differ in their types; hence reflect.
package main

import (
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/docker/docker/daemon/graphdriver"
	fuseoverlayfs "github.com/docker/docker/daemon/graphdriver/fuse-overlayfs"
	"github.com/docker/docker/daemon/graphdriver/overlay2"
	"github.com/docker/docker/daemon/graphdriver/vfs"
	"github.com/docker/docker/pkg/reexec"
)

func open(init interface{}, home string) graphdriver.Driver {
	call := reflect.ValueOf(init)
	arguments := []reflect.Value{reflect.ValueOf(home)}
	for i := 1; i < call.Type().NumIn(); i++ { // no options, no id maps
		arguments = append(arguments, reflect.Zero(call.Type().In(i)))
	}
	found := call.Call(arguments)
	if err, failed := found[1].Interface().(error); failed {
		fmt.Fprintln(os.Stderr, "init:", err)
		os.Exit(1)
	}
	return found[0].Interface().(graphdriver.Driver)
}

func get(d graphdriver.Driver, id string) (string, error) {
	found := reflect.ValueOf(d).MethodByName("Get").Call(
		[]reflect.Value{reflect.ValueOf(id), reflect.ValueOf("")})
	err, _ := found[1].Interface().(error)
	if dir, old := found[0].Interface().(interface{ Path() string }); old && err == nil {
		return dir.Path(), err
	}
	return fmt.Sprint(found[0]), err
}

func call(d graphdriver.Driver, verb, id, parent string) (err error) {
	switch verb {
	case "create":
		err = d.Create(id, parent, nil)
	case "get":
		var dir string
		if dir, err = get(d, id); err == nil {
			fmt.Println(dir)
		}
	case "put":
		err = d.Put(id)
	case "remove":
		err = d.Remove(id)
	case "exists":
		fmt.Println(d.Exists(id))
	case "cleanup":
		err = d.Cleanup()
	case "diff":
		var stream io.ReadCloser
		if stream, err = d.Diff(id, parent); err == nil {
			_, err = io.Copy(os.Stdout, stream)
			stream.Close()
		}
	case "apply":
		_, err = d.ApplyDiff(id, parent, os.Stdin)
	default:
		err = fmt.Errorf("no such verb")
	}
	return err
}

func main() {
	if reexec.Init() { // Docker's drivers call their own program again
		return
	}
	init := map[string]interface{}{
		"overlay2": overlay2.Init, "vfs": vfs.Init, "fuse-overlayfs": fuseoverlayfs.Init,
	}[os.Args[1]]
	d := open(init, os.Args[2])
	words := append(os.Args[3:], "--")
	status := 0
	for from, to := 0, 0; to < len(words); to++ {
		if words[to] != "--" {
			continue
		}
		verb := append(words[from:to:to], "", "")
		if err := call(d, verb[0], verb[1], verb[2]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", verb[0], err)
			status = 1
		}
		from = to + 1
	}
	os.Exit(status)
}
