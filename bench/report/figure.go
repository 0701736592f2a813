package report

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Figure is one row of the results.
type Figure struct {
	What  string
	Unit  string
	Got   []float64 // one for each round
	Peer  []float64 // of the same rounds; empty where there is only a limit
	Name  string    // of the peer
	Limit float64   // of the ratio to the peer, or of the value itself; zero: none
	More  bool      // more is better
}

// ratios compares each round with its peer, or with the limit.
func (f Figure) ratios() []float64 {
	var all []float64
	for i, g := range f.Got {
		switch {
		case i < len(f.Peer) && f.Peer[i] != 0:
			all = append(all, g/f.Peer[i])
		case len(f.Peer) == 0 && f.Limit != 0:
			all = append(all, g/f.Limit)
		}
	}
	return all
}

func (f Figure) verdict() string {
	bound := 1.0
	if len(f.Peer) > 0 {
		bound = f.Limit
	}
	ratios := f.ratios()
	switch r := Median(ratios); {
	case f.Limit == 0 || len(ratios) == 0:
		return "for information"
	case f.More && r >= bound, !f.More && r <= bound:
		return "meets"
	}
	return "MISSES"
}

func (f Figure) against() string {
	sign := "≤"
	if f.More {
		sign = "≥"
	}
	switch {
	case len(f.Peer) > 0 && f.Limit != 0:
		return fmt.Sprintf("%s: %s %s (ratio %s %.4g)", f.Name, spread(f.Peer), f.Unit, sign, f.Limit)
	case len(f.Peer) > 0:
		return fmt.Sprintf("%s: %s %s", f.Name, spread(f.Peer), f.Unit)
	case f.Limit != 0:
		return fmt.Sprintf("%s %.4g %s", sign, f.Limit, f.Unit)
	}
	return "-"
}

// Median returns the middle value, zero of none.
func Median(all []float64) float64 {
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
	return fmt.Sprintf("%.3g (%.3g to %.3g)", Median(all), slices.Min(all), slices.Max(all))
}

// Table returns the figures as a table in Markdown, and the notes below it.
func Table(figures []Figure, notes []string) string {
	rows := [][]string{{"figure", "measured", "peer or limit", "ratio", "verdict"}}
	for _, f := range figures {
		rows = append(rows, []string{f.What, spread(f.Got) + " " + f.Unit, f.against(), spread(f.ratios()), f.verdict()})
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

// File is a file of results. A section that is written again takes the place of the old one.
type File struct {
	Path     string   // empty: nothing is written
	Preface  string   // how it begins
	Sections []string // the titles, in their order
}

// Write puts the section into the file.
func (f File) Write(title, text string) error {
	if f.Path == "" {
		return nil
	}
	old, err := os.ReadFile(f.Path)
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
	b.WriteString(f.Preface)
	for _, title := range f.Sections {
		if s, ok := sections[title]; ok {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", title, s)
		}
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(f.Path, []byte(b.String()), 0o644)
}
