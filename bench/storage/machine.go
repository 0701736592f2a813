package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// diskOf returns the file system and the device of a directory.
func diskOf(dir string) (fsType, disk string) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "unknown", "unknown"
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "unknown", "unknown"
	}
	defer f.Close()
	fsType, disk = "unknown", "device "+number
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		head, tail, ok := strings.Cut(scan.Text(), " - ")
		fields, more := strings.Fields(head), strings.Fields(tail)
		if !ok || len(fields) < 6 || len(more) < 2 || fields[2] != number {
			continue
		}
		fsType, disk = more[0]+" ("+fields[5]+")", more[1]
		block := filepath.Join("/sys/dev/block", number)
		for _, entry := range []string{"device/model", "queue/rotational"} {
			if text, err := os.ReadFile(filepath.Join(block, entry)); err == nil {
				disk += ", " + filepath.Base(entry) + " " + strings.TrimSpace(string(text))
			}
		}
		break
	}
	return fsType, disk
}

// dropCaches forgets cached files and reports whether that is allowed here.
func dropCaches() bool {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0o200) == nil
}
