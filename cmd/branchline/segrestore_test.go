package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
)

// TestSegRestore leaves a copy in the directory of a closed store, which has it when it is opened.
func TestSegRestore(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	if err := os.MkdirAll(filepath.Join(store, "segments"), 0o755); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"seg", "restore", "--json", dir, golden}, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	var report segstore.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	id, err := branchline.ParseSegmentID(report.Segment)
	if err != nil {
		t.Fatal(err)
	}
	s, err := segstore.Open(store, segstore.Options{Signer: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for {
		seg, err := s.Segment(id)
		if err == nil && seg.Hash.String() == report.Hash {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%+v %v", seg, err)
		}
	}
}
