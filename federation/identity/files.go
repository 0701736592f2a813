package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/branchline-video/branchline"
)

const (
	fileMode = 0o600
	dirMode  = 0o700
	// maxFile bounds every file that is read here: the longest is the list of MaxSites sites.
	maxFile = 16 << 20

	pemKey  = "PRIVATE KEY"
	pemCert = "CERTIFICATE"
)

// writeFile replaces dir/name as a whole; when it returns nil the new content is on stable storage.
func writeFile(dir, name string, data []byte) (err error) {
	f, err := os.CreateTemp(dir, "."+name+"-*") // readable by its owner only
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("read %s: %w", path, branchline.ErrTooLarge)
	}
	return os.ReadFile(path)
}

// lock takes the directory's lock, which other processes respect as well; unlock gives it back.
func lock(dir string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f.Close, nil
}

// loadKey reads the directory's private key, or makes one.
func loadKey(dir, name string) (ed25519.PrivateKey, error) {
	der, err := readPEM(dir, name, pemKey)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		return key, writeFile(dir, name, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
	}
	if err != nil {
		return nil, err
	}
	any, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read %s: not an Ed25519 key: %w", name, branchline.ErrInvalid)
	}
	return key, nil
}

func readPEM(dir, name, kind string) ([]byte, error) {
	data, err := readFile(dir, name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("read %s: no %s in it: %w", filepath.Join(dir, name), kind, branchline.ErrInvalid)
	}
	return block.Bytes, nil
}

func readCert(dir, name string) (*x509.Certificate, error) {
	der, err := readPEM(dir, name, pemCert)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, name), err)
	}
	return c, nil
}

func writeCert(dir, name string, der []byte) error {
	return writeFile(dir, name, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der}))
}
