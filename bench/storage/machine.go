package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describeMachine says on what, when and of which commit something is measured.
func describeMachine(dir string) (string, error) {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return "", err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	commit, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	fsType, disk := diskOf(dir)
	return fmt.Sprintf("%s, commit %s; %s, %d cores, %s memory; Linux %s; %s on %s; %s; load before it began %s.",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), strings.TrimSpace(string(commit)),
		fieldOf("/proc/cpuinfo", "model name"), runtime.NumCPU(), fieldOf("/proc/meminfo", "MemTotal"),
		unix.ByteSliceToString(uname.Release[:]), fsType, disk, runtime.Version(),
		strings.Join(strings.Fields(string(load))[:1], " ")), nil
}

// fieldOf returns the value of the first line of a file that has the form name: value.
func fieldOf(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		if key, value, ok := strings.Cut(scan.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return "unknown"
}

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
