// dockerbench runs verbs of Docker's overlay2 in this process and reports the time of each.
//
//	dockerbench HOME
//
// It reads one command for each line, separated by tabs, and answers each with one line:
// the nanoseconds of the verb and its result, or "error" and a message. Commands: create,
// remove, put (ID [PARENT]); get ID, which returns the path; init, a second Init on the same home;
// diff and changes (ID PARENT), read to the end, which return the number of bytes or of changes;
// apply ID PARENT FILE, or SOCKET with a leading "@";
// cycle ID PARENT COUNT, which is create, get, put and remove COUNT times.
// Built by tests/gdserve/build with Docker 20.10, 26.1 and 28.5, whose Init and Get have different
// types; therefore reflect is used.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/daemon/graphdriver"
	"github.com/docker/docker/daemon/graphdriver/overlay2"
	"github.com/docker/docker/pkg/reexec"
)

func open(home string) (graphdriver.Driver, error) {
	call := reflect.ValueOf(overlay2.Init)
	arguments := []reflect.Value{reflect.ValueOf(home)}
	for i := 1; i < call.Type().NumIn(); i++ { // no options, no id maps
		arguments = append(arguments, reflect.Zero(call.Type().In(i)))
	}
	found := call.Call(arguments)
	if err, failed := found[1].Interface().(error); failed {
		return nil, err
	}
	return found[0].Interface().(graphdriver.Driver), nil
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

func source(name string) (io.ReadCloser, error) {
	if strings.HasPrefix(name, "@") {
		return net.Dial("unix", name[1:])
	}
	return os.Open(name)
}

func cycle(d graphdriver.Driver, id, parent string, count int) error {
	for i := 0; i < count; i++ {
		if err := d.CreateReadWrite(id, parent, nil); err != nil {
			return err
		}
		if _, err := get(d, id); err != nil {
			return err
		}
		if err := d.Put(id); err != nil {
			return err
		}
		if err := d.Remove(id); err != nil {
			return err
		}
	}
	return nil
}

func call(d graphdriver.Driver, home string, words []string) (answer string, err error) {
	verb, id, parent, last := words[0], words[1], words[2], words[3]
	switch verb {
	case "init":
		_, err = open(home)
	case "create":
		err = d.CreateReadWrite(id, parent, nil)
	case "get":
		answer, err = get(d, id)
	case "put":
		err = d.Put(id)
	case "remove":
		err = d.Remove(id)
	case "diff":
		var stream io.ReadCloser
		if stream, err = d.Diff(id, parent); err == nil {
			// io.Discard reads into 8 KiB; a reader of archives has a larger buffer.
			var size int64
			size, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, stream, make([]byte, 1<<20))
			stream.Close()
			answer = strconv.FormatInt(size, 10)
		}
	case "changes":
		var changes int
		found, failed := d.Changes(id, parent)
		changes, err = len(found), failed
		answer = strconv.Itoa(changes)
	case "apply":
		var stream io.ReadCloser
		if stream, err = source(last); err == nil {
			_, err = d.ApplyDiff(id, parent, stream)
			stream.Close()
		}
	case "cycle":
		var count int
		if count, err = strconv.Atoi(last); err == nil {
			err = cycle(d, id, parent, count)
		}
	default:
		err = fmt.Errorf("no such verb")
	}
	return answer, err
}

func main() {
	if reexec.Init() { // Docker's drivers call their own program again
		return
	}
	home := os.Args[1]
	d, err := open(home)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := append(strings.Split(commands.Text(), "\t"), "", "", "")
		start := time.Now()
		answer, err := call(d, home, words)
		took := time.Since(start)
		if err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println(took.Nanoseconds(), answer)
		}
	}
	d.Cleanup()
}
