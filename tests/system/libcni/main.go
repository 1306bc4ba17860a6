// libcni-client drives a network configuration list through libcni, the library that container runtimes are built on.
//
//	CNI_PATH=DIR:DIR libcni-client add|check|del|validate CONFLIST CONTAINERID NETNS IFNAME CACHEDIR
//
// LIBCNI_CAPABILITIES holds the capability arguments (a JSON object), LIBCNI_ARGS the CNI_ARGS (a JSON list of pairs).
// add prints the result of the list; what fails is told on stderr, with exit status 1.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
)

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: libcni-client COMMAND CONFLIST CONTAINERID NETNS IFNAME CACHEDIR")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command, file string, attachment []string) error {
	list, err := libcni.ConfListFromFile(file)
	if err != nil {
		return err
	}
	runtime := &libcni.RuntimeConf{ContainerID: attachment[0], NetNS: attachment[1], IfName: attachment[2]}
	if err := fromEnvironment("LIBCNI_CAPABILITIES", &runtime.CapabilityArgs); err != nil {
		return err
	}
	if err := fromEnvironment("LIBCNI_ARGS", &runtime.Args); err != nil {
		return err
	}
	client := libcni.NewCNIConfigWithCacheDir(filepath.SplitList(os.Getenv("CNI_PATH")), attachment[3], nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch command {
	case "add":
		result, err := client.AddNetworkList(ctx, list, runtime)
		if err != nil {
			return err
		}
		return result.PrintTo(os.Stdout)
	case "check":
		return client.CheckNetworkList(ctx, list, runtime)
	case "del":
		return client.DelNetworkList(ctx, list, runtime)
	case "validate":
		_, err := client.ValidateNetworkList(ctx, list)
		return err
	}
	return fmt.Errorf("unknown command %q", command)
}

func fromEnvironment(name string, target interface{}) error {
	text := os.Getenv(name)
	if text == "" {
		return nil
	}
	return json.Unmarshal([]byte(text), target)
}
