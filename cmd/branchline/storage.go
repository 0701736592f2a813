package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/branchline-video/branchline/segstore"
)

// StorageFile is what an edge and a hub say alike: where and how they keep their recordings. It is exported
// only because YAML sets no embedded field of another kind.
type StorageFile struct {
	Dir        string          `yaml:"dir"`
	Volumes    []string        `yaml:"volumes"`
	Scrub      *scrubFile      `yaml:"scrub"`
	Encryption *encryptionFile `yaml:"encryption"`
	Retention  *retentionFile  `yaml:"retention"`

	storage segstore.Options // all of that, parsed, but for the keys
}

// check fills in storage, but not what is kept: that is not alike.
func (c *StorageFile) check() (err error) {
	if err := checkVolumes(c.Dir, c.Volumes); err != nil {
		return err
	}
	c.storage.Volumes = c.Volumes
	if c.storage.Scrub, err = c.Scrub.plan("$.scrub"); err != nil {
		return err
	}
	return c.Encryption.check()
}

// options returns how to open the store, with the keys.
func (c *StorageFile) options() (opt segstore.Options, err error) {
	opt = c.storage
	opt.Keys, opt.Plain, err = c.Encryption.keys()
	return opt, err
}

// checkVolumes checks the directories that recordings go to when dir is not to hold them.
func checkVolumes(dir string, volumes []string) error {
	if len(volumes) > segstore.MaxVolumes {
		return wrong("$.volumes", "%d of them, at most %d are possible", len(volumes), segstore.MaxVolumes)
	}
	home, err := filepath.Abs(dir)
	if err != nil {
		return wrong("$.dir", "%w", err)
	}
	for i, v := range volumes {
		at := fmt.Sprintf("$.volumes[%d]", i)
		switch {
		case !filepath.IsAbs(v):
			return wrong(at, "%q is not a whole path: write for example /mnt/disk1/branchline", v)
		case filepath.Clean(v) == home:
			return wrong(at, "%q is dir itself, which keeps the index; leave volumes out to record there", v)
		case within(home, v):
			return wrong(at, "%q is inside dir, which keeps the index; leave volumes out to record there", v)
		case within(v, home):
			return wrong(at, "dir is inside %q: give the volume a directory of its own, such as %s", v,
				filepath.Join(v, "recordings"))
		case slices.IndexFunc(volumes, func(o string) bool { return filepath.Clean(o) == filepath.Clean(v) }) < i:
			return wrong(at, "%q is there twice", v)
		}
	}
	return nil
}

// within reports whether a path is the directory or in it; both are absolute.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
