package testcam

import "math"

// The lettering is drawn from strokes, so that it is smooth at any size. A glyph is a list of lines
// through points of a grid seven wide and ten high, two digits a point: column, row.
const (
	glyphColumns = 6 // the last column
	glyphRows    = 9 // the last row
)

// strokes returns the glyph of a printable ASCII character; lower case looks like upper case, and what is
// not known is blank.
func strokes(c byte) []string {
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	if c >= 'A' && c <= 'Z' {
		return letterStrokes(c)
	}
	switch c {
	case '0':
		return []string{"204062674929070220"}
	case '1':
		return []string{"123039", "1959"}
	case '2':
		return []string{"02204062630969"}
	case '3':
		return []string{"02204062634424", "446667492907"}
	case '4':
		return []string{"49400666"}
	case '5':
		return []string{"600004446667492907"}
	case '6':
		return []string{"5030040729496766442406"}
	case '7':
		return []string{"006029"}
	case '8':
		return []string{"204062634424030220", "244466674929070624"}
	case '9':
		return []string{"1939656240200203254563"}
	case '-':
		return []string{"1555"}
	case '.':
		return []string{"3939"}
	case ':':
		return []string{"3333", "3737"}
	case '/':
		return []string{"6009"}
	case '_':
		return []string{"0969"}
	default:
		return nil
	}
}

func letterStrokes(c byte) []string {
	return [...][]string{
		{"093069", "1656"}, {"09004062634404", "4466674909"}, {"6240200207294967"}, {"09004062674909"},
		{"60000969", "0444"}, {"600009", "0444"}, {"62402002072949676535"}, {"0009", "6069", "0464"},
		{"3039", "1050", "1959"}, {"6067492907"}, {"0009", "6005", "2369"}, {"000969"}, {"0900356069"},
		{"09006960"}, {"204062674929070220"}, {"09004062634505"}, {"204062674929070220", "4669"},
		{"09004062634505", "3569"}, {"624020020324456667492907"}, {"0060", "3039"}, {"000729496760"},
		{"003960"}, {"0019345960"}, {"0069", "6009"}, {"003460", "3439"}, {"00600969"},
	}[c-'A']
}

// lettering is a size of text. Every character has a cell of its own, w by h samples.
type lettering struct {
	w, h   int
	glyphs [128]mask // made when first used
}

// glyph returns the character's coverage of its cell. Not safe for concurrent use.
func (l *lettering) glyph(c byte) mask {
	c &= 127
	if l.glyphs[c].alpha == nil {
		l.glyphs[c] = drawGlyph(strokes(c), l.w, l.h)
	}
	return l.glyphs[c]
}

// drawGlyph draws lines with round ends, smoothed by how far a sample's centre is from the line.
func drawGlyph(lines []string, w, h int) mask {
	m := mask{w: w, h: h, alpha: make([]uint8, w*h)}
	pen := float64(h) / 8 // width of a line
	sx := (min(float64(w)*0.84, float64(h)*0.56) - pen) / glyphColumns
	sy := (float64(h)*0.82 - pen) / glyphRows
	x0, y0 := (float64(w)-sx*glyphColumns)/2, (float64(h)-sy*glyphRows)/2
	at := func(line string, i int) point {
		return point{x0 + sx*float64(line[2*i]-'0'), y0 + sy*float64(line[2*i+1]-'0')}
	}
	for j := range h {
		for i := range w {
			nearest := math.Inf(1)
			for _, line := range lines {
				for k := 0; k+1 < len(line)/2; k++ {
					p := point{float64(i) + 0.5, float64(j) + 0.5}
					nearest = min(nearest, p.distance(at(line, k), at(line, k+1)))
				}
			}
			m.alpha[j*w+i] = uint8(255 * min(max(pen/2+0.5-nearest, 0), 1))
		}
	}
	return m
}

type point struct{ x, y float64 }

// distance returns how far p is from the line between a and b.
func (p point) distance(a, b point) float64 {
	dx, dy := b.x-a.x, b.y-a.y
	t := 0.0
	if n := dx*dx + dy*dy; n > 0 {
		t = min(max(((p.x-a.x)*dx+(p.y-a.y)*dy)/n, 0), 1)
	}
	return math.Hypot(p.x-a.x-t*dx, p.y-a.y-t*dy)
}
