package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/branchline-video/branchline/federation/identity"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/internal/clock"
)

// TestRefusals feeds one running system everything that is wrong with tokens, certificates,
// configurations, cameras and messages. Each gets a clear error, and all the while the one good site
// goes on being recorded at the hub without a frame lost.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{policies: alwaysAndBackfill, cameras: []string{"door"}, segment: 5 * time.Second})
	w.untilHeldLive("door")
	began := time.Now().Add(-5 * time.Second)

	good := w.token("lyon")
	lyon := t.TempDir()
	t.Run("a used token", func(t *testing.T) {
		first := w.bareEdge(t, lyon, "--token", good)
		first.says(t, "link up")
		second := w.bareEdge(t, t.TempDir(), "--token", good)
		second.says(t, "the token was already used; make a new one with `branchline site add NAME`")
		second.alive(t)
	})
	t.Run("a token that the hub did not make", func(t *testing.T) {
		other := newWorldHubOnly(t, w)
		p := w.bareEdge(t, t.TempDir(), "--token", other)
		p.says(t, "not the hub that made the token")
		p.alive(t)
	})
	t.Run("a token with a slip of the pen", func(t *testing.T) {
		config := write(t, t.TempDir(), "edge.yaml", "dir: "+t.TempDir()+"\n")
		_, errs, code := command(t, "edge", "--config", config, "--token", good[:len(good)-3]+"aaa")
		if code != 2 || !strings.Contains(errs, "token") {
			t.Errorf("exit %d: %s", code, errs)
		}
	})
	t.Run("a certificate of another authority", func(t *testing.T) { w.dialWithForeignCertificate(t) })
	t.Run("a broken configuration", func(t *testing.T) {
		config := write(t, t.TempDir(), "edge.yaml", "dir: /nowhere\ncameras:\n  - id: door\n    ulr: rtsp://x/\n")
		_, errs, code := command(t, "edge", "--config", config)
		if code != 2 || !strings.Contains(errs, config+":4:") || !strings.Contains(errs, "ulr") {
			t.Errorf("exit %d: %s", code, errs)
		}
	})
	t.Run("a camera that refuses, and one that is not there", func(t *testing.T) { w.badCameras(t) })
	t.Run("messages over their limit, and without end", func(t *testing.T) { oversized(t, lyon, w.relay.address()) })
	t.Run("a revoked site", func(t *testing.T) {
		p := w.bareEdge(t, lyon)
		p.says(t, "link up")
		if _, errs, code := command(t, "site", "revoke", "lyon", "--config", w.hubYAML); code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		p.says(t, "the site's certificate was revoked or replaced")
		p.alive(t)
		w.lists(t, map[string]string{site: "up", "lyon": "revoked"})
	})
	end := time.Now()
	until(t, catchUp, "the good site is held", func() bool { return w.allHeld("door", began, end) })
	w.frames("door", began, end).unbroken(t)
}

// lists fails unless `site list` tells exactly these sites with these states.
func (w *world) lists(t *testing.T, want map[string]string) {
	t.Helper()
	out, errs, code := command(t, "site", "list", "--config", w.hubYAML, "--json")
	var sites []struct{ ID, State string }
	if err := json.Unmarshal([]byte(out), &sites); code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	got := map[string]string{}
	for _, s := range sites {
		got[s.ID] = s.State
	}
	if !maps.Equal(got, want) {
		t.Errorf("site list tells %v, want %v", got, want)
	}
}

// bareEdge starts an edge without cameras in the directory.
func (w *world) bareEdge(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	config := write(t, dir, "edge.yaml", "dir: "+dir+"\n")
	return start(t, "bare edge", append([]string{"edge", "--config", config}, args...)...)
}

// oversized links to the hub as the site that is enrolled in dir, greets it with the length of an
// enormous message, and sends bytes without end. The hub says what is wrong and hangs up.
func oversized(t *testing.T, dir, hub string) {
	node, err := identity.OpenNode(filepath.Join(dir, "identity"), clock.Clock{})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := node.TLS()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	for _, length := range [][]byte{{0xff, 0xff, 0xff, 0x7f}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}} {
		conn, err := link.Dial(ctx, hub, link.Options{TLS: conf})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := conn.OpenStream(ctx, link.KindControl)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Write(length)
		for endless := make([]byte, 64<<10); err == nil; {
			_, err = stream.Write(endless)
		}
		var refusal *link.Error
		if !errors.As(err, &refusal) || !refusal.Remote || !strings.Contains(refusal.Reason, "message") {
			t.Errorf("after a length of %x: %v, want the hub to say what is wrong", length, err)
		}
		conn.Close(0, "")
	}
}

// says waits until the process has logged the text.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	until(t, 20*time.Second, p.name+" says "+text, func() bool { return strings.Contains(p.ring.String(), text) })
}

// alive fails if the process has ended.
func (p *process) alive(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
		t.Errorf("%s ended:\n%s", p.name, p.ring)
	default:
	}
}

// newWorldHubOnly starts a second hub whose token names the first one's address, and returns it.
func newWorldHubOnly(t *testing.T, w *world) string {
	t.Helper()
	dir := t.TempDir()
	config := write(t, dir, "hub.yaml", "dir: "+filepath.Join(dir, "hub")+"\nlisten: "+freePort(t, "udp")+
		"\nhttp: "+freePort(t, "tcp")+"\npublic: [\""+w.relay.address()+"\"]\n")
	other := start(t, "other hub", "hub", "--config", config, "--json")
	var ready struct{ Link string }
	other.ready(t, &ready)
	stranger := &world{t: t, hubYAML: config}
	return stranger.token("lyon")
}

// dialWithForeignCertificate tries to link with a certificate that names the site and that nobody
// who matters has signed.
func (w *world) dialWithForeignCertificate(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: site},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs:        []*url.URL{{Scheme: "branchline", Host: "site", Path: "/" + site}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	conn, err := link.Dial(ctx, w.relay.address(), link.Options{TLS: &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		NextProtos:   []string{identity.ProtocolLink}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, // this client is the villain
	}})
	if err == nil {
		defer conn.Close(0, "")
		_, err = conn.AcceptStream(ctx)
	}
	if err == nil || !strings.Contains(err.Error(), "issued by another authority") {
		t.Errorf("got %v", err)
	}
}

// badCameras runs an edge with a camera that refuses its password, one that is not there and a good
// one, and looks at what it says and records.
func (w *world) badCameras(t *testing.T) {
	dir := t.TempDir()
	some := []string{"camera", "--listen", "127.0.0.1:0", "--json"}
	locked := start(t, "locked camera", append(some, "--user", "u", "--password", "right")...)
	open := start(t, "open camera", some...)
	var refusing, willing struct{ URLs []string }
	locked.ready(t, &refusing)
	open.ready(t, &willing)
	address := strings.Replace(refusing.URLs[0], "rtsp://", "rtsp://u:wrong@", 1)
	config := write(t, dir, "edge.yaml", "dir: "+dir+"\nsegment: 2s\ncameras:\n"+
		"  - {id: locked, url: \""+address+"\"}\n  - {id: absent, url: \"rtsp://"+freePort(t, "tcp")+"/main\"}\n"+
		"  - {id: fine, url: \""+willing.URLs[0]+"\"}\n")
	edge := start(t, "edge with bad cameras", "edge", "--config", config)
	edge.says(t, "camera refused credentials")
	edge.says(t, "camera unreachable")
	if strings.Contains(edge.ring.String(), "wrong@") {
		t.Error("the log shows the camera's password")
	}
	until(t, 20*time.Second, "the good camera is recorded", func() bool {
		found, err := filepath.Glob(filepath.Join(dir, "store", "segments", "fine.main", "*", "*.mp4"))
		return err == nil && len(found) >= 2
	})
	if _, err := os.Stat(filepath.Join(dir, "store", "segments", "locked.main")); err == nil {
		t.Error("something was recorded of the camera that refuses")
	}
}
