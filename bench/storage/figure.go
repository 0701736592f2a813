package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// figure is one row of the results.
type figure struct {
	what  string
	unit  string
	got   []float64 // one for each round
	peer  []float64 // of the same rounds; empty where there is only a limit
	name  string    // of the peer
	limit float64   // of the ratio to the peer, or of the value itself; zero: none
	more  bool      // more is better
}

// ratios compares each round with its peer, or with the limit.
func (f figure) ratios() []float64 {
	var all []float64
	for i, g := range f.got {
		switch {
		case i < len(f.peer) && f.peer[i] != 0:
			all = append(all, g/f.peer[i])
		case len(f.peer) == 0 && f.limit != 0:
			all = append(all, g/f.limit)
		}
	}
	return all
}

func (f figure) verdict() string {
	bound := 1.0
	if len(f.peer) > 0 {
		bound = f.limit
	}
	ratios := f.ratios()
	switch r := median(ratios); {
	case f.limit == 0 || len(ratios) == 0:
		return "for information"
	case f.more && r >= bound, !f.more && r <= bound:
		return "meets"
	}
	return "MISSES"
}

func (f figure) against() string {
	sign := "≤"
	if f.more {
		sign = "≥"
	}
	switch {
	case len(f.peer) > 0 && f.limit != 0:
		return fmt.Sprintf("%s: %s %s (ratio %s %.4g)", f.name, spread(f.peer), f.unit, sign, f.limit)
	case len(f.peer) > 0:
		return fmt.Sprintf("%s: %s %s", f.name, spread(f.peer), f.unit)
	case f.limit != 0:
		return fmt.Sprintf("%s %.4g %s", sign, f.limit, f.unit)
	}
	return "-"
}

// median returns the middle value, zero of none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(all))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// spread writes the median with the least and the most.
func spread(all []float64) string {
	if len(all) == 0 {
		return "-"
	}
	if len(all) == 1 {
		return fmt.Sprintf("%.3g", all[0])
	}
	return fmt.Sprintf("%.3g (%.3g to %.3g)", median(all), slices.Min(all), slices.Max(all))
}

// table returns the figures as a table in Markdown, and the notes below it.
func table(figures []figure, notes []string) string {
	rows := [][]string{{"figure", "measured", "peer or limit", "ratio", "verdict"}}
	for _, f := range figures {
		rows = append(rows, []string{f.what, spread(f.got) + " " + f.unit, f.against(), spread(f.ratios()), f.verdict()})
	}
	wide := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			wide[i] = max(wide[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	for i, r := range rows {
		for k, c := range r {
			fmt.Fprintf(&b, "| %s%s ", c, strings.Repeat(" ", wide[k]-len([]rune(c))))
		}
		b.WriteString("|\n")
		for k := 0; i == 0 && k < len(r); k++ {
			fmt.Fprintf(&b, "|%s", strings.Repeat("-", wide[k]+2))
		}
		if i == 0 {
			b.WriteString("|\n")
		}
	}
	for i, n := range notes {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "- %s\n", n)
	}
	return b.String()
}

const preface = `# Storage: what was measured

Made by ` + "`make bench-storage`" + `, see bench/storage. Values are medians of several rounds with the least and the
most in brackets; peer and project took turns. A ratio is taken in each round.
`

// writeSection replaces the section with the title in a file of results, or adds it at its place.
func writeSection(path, title, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sections := make(map[string]string)
	for i, part := range strings.Split(string(old), "\n## ") {
		if head, body, ok := strings.Cut(part, "\n"); ok && i > 0 {
			sections[head] = strings.TrimSpace(body)
		}
	}
	sections[title] = strings.TrimSpace(text)
	var b strings.Builder
	b.WriteString(preface)
	for _, k := range benchmarks() {
		if s, ok := sections[k.about]; ok {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", k.about, s)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
