package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/branchline-video/branchline/segstore/crypt"
)

// encryptionFile says with which keys a store's recordings are encrypted.
type encryptionFile struct {
	KeyFile    string `yaml:"key_file"`   // see branchline seg key new
	Credential string `yaml:"credential"` // the name of a systemd credential
	OnlyRead   bool   `yaml:"only_read"`  // write in plain again; what is encrypted stays so
}

func (e *encryptionFile) check() error {
	if e != nil && (e.KeyFile == "") == (e.Credential == "") {
		return wrong("$.encryption", "needs key_file, a path, or credential, a name given to systemd, and not both")
	}
	return nil
}

// keys reads the keys; none without encryption.
func (e *encryptionFile) keys() (k *crypt.Keys, onlyRead bool, err error) {
	switch {
	case e == nil:
		return nil, false, nil
	case e.KeyFile != "":
		k, err = crypt.Load(e.KeyFile)
	default:
		k, err = crypt.Credential(os.Getenv("CREDENTIALS_DIRECTORY"), e.Credential)
	}
	if err != nil {
		return nil, false, usageError{fmt.Errorf("encryption: %w", err)}
	}
	return k, e.OnlyRead, nil
}

// keyFlag is the flag of commands that read recordings which may be encrypted.
type keyFlag struct {
	KeyFile string `help:"File with the keys of what is encrypted." type:"path" placeholder:"FILE"`
}

func (f keyFlag) keys() (*crypt.Keys, error) {
	if f.KeyFile == "" {
		return nil, nil
	}
	k, err := crypt.Load(f.KeyFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("--key-file: %w", err)}
	}
	return k, nil
}

type segKeyCommands struct {
	New segKeyNewCommand `cmd:"" help:"Make a new key for encryption at rest."`
}

type segKeyNewCommand struct {
	File string `arg:"" help:"Write it to this file, which must not be there yet." type:"path"`
	JSON bool   `help:"Print JSON."`
}

// Run writes a new key, readable for its owner alone, and prints its identifier, which is not secret.
func (c *segKeyNewCommand) Run(t *terminal) error {
	text := crypt.New()
	f, err := os.OpenFile(c.File, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usageError{fmt.Errorf("%s is there already; to change keys put a new one above the old in one file", c.File)}
	}
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write key: %w", err), os.Remove(c.File))
	}
	keys, err := crypt.Load(c.File)
	if err != nil {
		return err
	}
	key, _ := keys.First()
	if c.JSON {
		return printJSON(t.stdout, map[string]string{"file": c.File, "key": key.ID().String()})
	}
	_, err = fmt.Fprintf(t.stdout, "%s: key %v\nKeep a copy elsewhere: without it the recordings are lost.\n",
		c.File, key.ID())
	return err
}
