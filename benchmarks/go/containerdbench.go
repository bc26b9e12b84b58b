// containerdbench runs containerd's archive package in this process and reports the time of each
// call.
//
//	containerdbench
//
// It reads one command for each line, separated by tabs, and answers each with one line:
// the nanoseconds of the call, or "error" and a message. Commands: diff LOWER UPPER, which compares
// two directories as containerd's walking differ does, LOWER empty for none; apply ROOT FILE, as its
// overlay applier unpacks a layer. Built by tests/gdserve/build.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/archive"
)

func call(words []string) error {
	switch words[0] {
	case "diff":
		// A destination of archives without cost, as for the other candidates.
		return archive.WriteDiff(context.Background(), struct{ io.Writer }{io.Discard}, words[1], words[2])
	case "apply":
		stream, err := os.Open(words[2])
		if err != nil {
			return err
		}
		defer stream.Close()
		_, err = archive.Apply(context.Background(), words[1], stream,
			archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
		if err == nil {
			_, err = io.Copy(io.Discard, stream)
		}
		return err
	}
	return fmt.Errorf("no such verb")
}

func main() {
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		words := append(strings.Split(commands.Text(), "\t"), "", "", "")
		start := time.Now()
		err := call(words)
		took := time.Since(start)
		if err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println(took.Nanoseconds())
		}
	}
}
