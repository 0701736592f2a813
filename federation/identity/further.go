package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/clock"
)

// Further opens the node's identity towards one more hub, in a folder of that name in the node's own: a
// certificate of that hub's authority, for the node's one key, as a segment has one signature that every hub
// verifies. The error wraps [branchline.ErrInvalid] if the folder is of another key.
func (n *Node) Further(name string, clk clock.Clock) (*Node, error) {
	dir := filepath.Join(n.dir, name)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("open identity for hub %s: %w", name, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(n.key)
	if err != nil {
		return nil, fmt.Errorf("open identity for hub %s: %w", name, err)
	}
	has, err := readPEM(dir, "node.key", pemKey)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = writeFile(dir, "node.key", pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
	case err == nil && !bytes.Equal(has, der):
		err = fmt.Errorf("%s was made for another key than that of %s: delete it and enrol there anew: %w", dir, n.dir,
			branchline.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("open identity for hub %s: %w", name, err)
	}
	return OpenNode(dir, clk)
}

const firstFile = "first-hub"

// FirstHub returns for which of the node's hubs its own certificate is, and the others those of
// [Node.Further]: the one that was first when this was asked for the first time, whatever the order of their
// names is by now.
func (n *Node) FirstHub(names []string) (string, error) {
	data, err := readFile(n.dir, firstFile)
	if errors.Is(err, fs.ErrNotExist) && len(names) > 0 {
		data = []byte(names[0])
		err = writeFile(n.dir, firstFile, data)
	}
	if err != nil {
		return "", fmt.Errorf("look up the first hub: %w", err)
	}
	return string(data), nil
}
