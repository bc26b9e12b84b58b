// Docker's own graphtest, run over a graphdriver plugin that listens on $GRAPHDRIVER_SOCKET.
//
// The checks, the plugin client and the proxy are Docker's, unchanged. The order is that of Docker's
// own test of overlay2; Changes is last, because that test skips it.
package graphtest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/docker/docker/daemon/graphdriver"
	"github.com/docker/docker/daemon/graphdriver/graphtest"
	"github.com/docker/docker/pkg/idtools"
	"github.com/docker/docker/pkg/plugingetter"
	"github.com/docker/docker/pkg/plugins"
	"github.com/docker/docker/pkg/reexec"
)

const name = "foreign"

// plugin is the plugin that Docker's plugin store would return.
type plugin struct{ client *plugins.Client }

func (p plugin) Name() string                  { return name }
func (p plugin) IsV1() bool                    { return true }
func (p plugin) ScopedPath(path string) string { return path }
func (p plugin) Client() *plugins.Client       { return p.client }

// store contains one plugin.
type store struct{ plugingetter.PluginGetter }

func (store) Get(string, string, int) (plugingetter.CompatPlugin, error) {
	address := "unix://" + os.Getenv("GRAPHDRIVER_SOCKET")
	client, err := plugins.NewClientWithTimeout(address, nil, time.Minute)
	if err != nil {
		return nil, err
	}
	var said map[string][]string
	if err := client.Call("Plugin.Activate", nil, &said); err != nil {
		return nil, fmt.Errorf("Plugin.Activate: %w", err)
	}
	return plugin{client}, nil
}

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	open := func(root string, options []string, uids, gids []idtools.IDMap) (graphdriver.Driver, error) {
		return graphdriver.GetDriver("plugin", store{}, graphdriver.Options{
			Root: filepath.Dir(root), DriverOptions: options, UIDMaps: uids, GIDMaps: gids,
			ExperimentalEnabled: true})
	}
	if err := graphdriver.Register(name, open); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestSetup(t *testing.T)            { graphtest.GetDriver(t, name) }
func TestCreateEmpty(t *testing.T)      { graphtest.DriverTestCreateEmpty(t, name) }
func TestCreateBase(t *testing.T)       { graphtest.DriverTestCreateBase(t, name) }
func TestCreateSnap(t *testing.T)       { graphtest.DriverTestCreateSnap(t, name) }
func Test128LayerRead(t *testing.T)     { graphtest.DriverTestDeepLayerRead(t, 128, name) }
func TestDiffApply10Files(t *testing.T) { graphtest.DriverTestDiffApply(t, 10, name) }
func TestChanges(t *testing.T)          { graphtest.DriverTestChanges(t, name) }
func TestTeardown(t *testing.T)         { graphtest.PutDriver(t) }
