package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/segstore/retain"
)

// limitsFile says what is kept of some streams. What is left out is as it is for all.
type limitsFile struct {
	Streams        string `yaml:"streams"` // a pattern; at a hub alone
	Keep           string `yaml:"keep"`
	ThinAfter      string `yaml:"thin_after"`
	UntilRetrieved string `yaml:"until_retrieved"`
	Quota          string `yaml:"quota"` // of each camera
}

// retentionFile says what a store keeps. Its quota is that of the whole store.
type retentionFile struct {
	Keep           string       `yaml:"keep"`
	ThinAfter      string       `yaml:"thin_after"`
	UntilRetrieved string       `yaml:"until_retrieved"`
	Quota          string       `yaml:"quota"`
	Free           string       `yaml:"free"`
	Streams        []limitsFile `yaml:"streams"` // of a hub; the first that matches counts
}

// maxAge bounds a length of time: longer is for ever.
const maxAge = 100 * 365 * 24 * time.Hour

// rules returns what the file says, under the configuration's path at. A nil file says nothing.
func (f *retentionFile) rules(at string) (retain.Rules, error) {
	var r retain.Rules
	if f == nil {
		f = &retentionFile{}
	}
	var err error
	if r.Quota, err = parseSize(at+".quota", f.Quota); err != nil {
		return r, err
	}
	if r.Free, err = parseShare(at+".free", f.Free); err != nil {
		return r, err
	}
	for i := range f.Streams {
		s := &f.Streams[i]
		at := fmt.Sprintf("%s.streams[%d]", at, i)
		if !(policy.Policy{Streams: s.Streams, Kind: policy.Never}).Valid() {
			return r, wrong(at+".streams", "%q is no pattern: write for example \"berlin.*\"; * stands for any text", s.Streams)
		}
		rule, err := f.limit(s, s.Streams, at)
		if err != nil {
			return r, err
		}
		r.Rules = append(r.Rules, rule)
	}
	general, err := f.limit(&limitsFile{}, "", at)
	if err == nil && general != (retain.Rule{}) {
		r.Rules = append(r.Rules, general)
	}
	return r, err
}

// limit returns the rule for a pattern: what own says, and for the rest what f says.
func (f *retentionFile) limit(own *limitsFile, pattern, at string) (retain.Rule, error) {
	r := retain.Rule{Streams: pattern}
	for _, v := range []struct {
		name, own, all string
		to             *time.Duration
	}{
		{"keep", own.Keep, f.Keep, &r.Keep},
		{"thin_after", own.ThinAfter, f.ThinAfter, &r.ThinAfter},
		{"until_retrieved", own.UntilRetrieved, f.UntilRetrieved, &r.Extend},
	} {
		text := v.own
		if text == "" {
			text = v.all
		}
		var err error
		if *v.to, err = parseAge(at+"."+v.name, text); err != nil {
			return r, err
		}
	}
	if r.Keep > 0 && r.ThinAfter >= r.Keep {
		return r, wrong(at+".thin_after", "%s is not before recordings are removed, after %s: write less, or forever",
			retain.Age(r.ThinAfter), retain.Age(r.Keep))
	}
	if r.Extend > 0 && r.Keep == 0 && r.ThinAfter == 0 {
		return r, wrong(at+".until_retrieved", "extends keep or thin_after: say one of them, for example keep: 30d")
	}
	var err error
	r.Quota, err = parseSize(at+".quota", own.Quota)
	return r, err
}

// parseAge reads "30d", "12h", "1d12h"; nothing and "forever" are zero.
func parseAge(path, text string) (time.Duration, error) {
	if text == "" || text == "forever" {
		return 0, nil
	}
	bad := wrong(path, "%q is no length of time: write for example 30d, 12h or 1d12h, or forever", text)
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, bad
	}
	age := time.Duration(n) * 24 * time.Hour
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return 0, bad
		}
		age += d
	}
	if age <= 0 || age > maxAge {
		return 0, wrong(path, "%q is not between a moment and a hundred years; write forever to keep for ever", text)
	}
	return age, nil
}

// parseSize reads "500GB", "1.5 TiB"; nothing is zero.
func parseSize(path, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	bad := wrong(path, "%q is no size: write for example 500GB, 2TB or 1.5TiB", text)
	parts := regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([kKMGT])(i?)B$`).FindStringSubmatch(text)
	if parts == nil {
		return 0, bad
	}
	amount, err := strconv.ParseFloat(parts[1], 64)
	if err != nil {
		return 0, bad
	}
	base := 1000.0
	if parts[3] != "" {
		base = 1024
	}
	for range strings.Index("KMGT", strings.ToUpper(parts[2])) + 1 {
		amount *= base
	}
	if amount < 1 || amount > 1<<60 {
		return 0, wrong(path, "%q is out of bounds", text)
	}
	return int64(amount), nil
}

// parseShare reads "5%" or a size; nothing is zero.
func parseShare(path, text string) (retain.Share, error) {
	number, percent := strings.CutSuffix(text, "%")
	if !percent {
		size, err := parseSize(path, text)
		if err != nil {
			err = wrong(path, "%q is no part of a disk: write for example 5%% or 20GB", text)
		}
		return retain.Share{Bytes: size}, err
	}
	share, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || share < 0.1 || share > 90 {
		return retain.Share{}, wrong(path, "%q is not between 0.1%% and 90%%", text)
	}
	return retain.Share{Thousands: int64(share*10 + 0.5)}, nil
}
