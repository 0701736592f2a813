package testcam

import (
	"fmt"
	"time"
)

// The picture is laid out on a sheet of 640 by 360 and scaled to the stream's size. At 640x360 and its
// whole multiples the blocks of the pattern and the cells of the text lie on macroblocks, which makes
// frames small.
const (
	sheetWidth, sheetHeight = 640, 360

	horizon            = 256 // where the ground begins
	laneTop, laneEnd   = 304, 320
	carWidth           = 44
	carPeriod          = 9 * time.Second // from one side to the other
	maxNameShown       = 18              // characters that fit beside the buildings
	textTop, textLeft  = 82, 32
	clockTop, infoTop  = 112, 160
	bigCell, smallCell = 32, 16 // heights of characters' cells
	moonX, moonY       = 318, 104
	moonRadius         = 11
)

// scene draws the frames of one stream: a street at dusk that stays as it is, and over it what changes.
// It tells the encoder which macroblocks it touched.
type scene struct {
	enc    *encoder
	pic    *Picture
	base   *Picture // the picture without anything that changes
	camera uint16
	big    lettering
	small  lettering
	tint   int // of the sky, from the camera's number

	cells [patternRows][patternColumns]bool
	drawn bool // cells and texts hold what the picture shows
	texts [4]string
	car   rect
}

func newScene(enc *encoder, camera uint16, name string) *scene {
	s := &scene{enc: enc, pic: enc.pic, camera: camera, tint: int(camera) % 4}
	s.base = newPicture(s.pic.Width, s.pic.Height)
	s.big = lettering{w: s.even(bigCell * 3 / 4), h: s.even(bigCell)}
	s.small = lettering{w: s.even(smallCell), h: s.even(smallCell)}
	s.drawSky()
	s.drawBuildings()
	s.drawStreet()
	if len(name) > maxNameShown {
		name = name[:maxNameShown]
	}
	s.base.fill(s.at(rect{textLeft - 14, textTop + 3, textLeft - 10, infoTop + 2*smallCell - 3}), s.accent(150))
	s.write(textLeft, textTop, name)
	s.pic.copyFrom(s.base, rect{0, 0, s.pic.Stride, s.pic.rows()})
	return s
}

// x and y scale from the sheet to the picture.
func (s *scene) x(v int) int { return v * s.pic.Width / sheetWidth }
func (s *scene) y(v int) int { return v * s.pic.Height / sheetHeight }

func (s *scene) at(r rect) rect { return rect{s.x(r.x0), s.y(r.y0), s.x(r.x1), s.y(r.y1)} }

// even scales a length of text by the smaller of both scales, to an even number of samples.
func (s *scene) even(v int) int {
	return max(min(v*s.pic.Width/sheetWidth, v*s.pic.Height/sheetHeight)&^1, 2)
}

// accent returns the camera's own colour at a luma.
func (s *scene) accent(y uint8) color {
	return [...]color{{y, 118, 148}, {y, 148, 108}, {y, 112, 120}, {y, 144, 142}}[s.tint]
}

// dusk returns the tint of sky and walls at a luma.
func (s *scene) dusk(y int) color {
	return [...]color{
		{uint8(y), 138, 122}, {uint8(y), 135, 120}, {uint8(y), 132, 122}, {uint8(y), 136, 128},
	}[s.tint]
}

func (s *scene) drawSky() {
	top, end := s.y(patternRows*mbSize), s.y(horizon)
	s.base.fill(rect{0, 0, s.pic.Stride, top}, color{16, 128, 128})
	for y := top; y < end; y++ {
		s.base.fill(rect{0, y, s.pic.Stride, y + 1}, s.dusk(30+38*(y-top)/(end-top)))
	}
	s.drawMoon()
	for y := end; y < s.pic.rows(); y++ {
		s.base.fill(rect{0, y, s.pic.Stride, y + 1}, s.dusk(46-10*(y-end)/max(s.pic.rows()-end, 1)))
	}
}

func (s *scene) drawMoon() {
	size := s.even(2*moonRadius + 2)
	m := mask{w: size, h: size, alpha: make([]uint8, size*size)}
	centre := point{float64(size) / 2, float64(size) / 2}
	for i := range m.alpha {
		p := point{float64(i%size) + 0.5, float64(i/size) + 0.5}
		m.alpha[i] = uint8(200 * min(max(centre.x-0.5-p.distance(centre, centre), 0), 1))
	}
	s.base.blend(m, (s.x(moonX)-size/2)&^1, (s.y(moonY)-size/2)&^1, color{190, 120, 134})
}

// drawBuildings draws a row of houses with some windows lit, different for every camera.
func (s *scene) drawBuildings() {
	seed := uint32(s.camera)*2654435761 + 12345
	next := func(n int) int {
		seed = seed*1664525 + 1013904223
		return int(seed>>16) % n
	}
	for x := 352; x < sheetWidth; {
		width := 48 + 16*next(3)
		top := 112 + 16*next(6)
		s.base.fill(s.at(rect{x, top, x + width - 4, horizon}), s.dusk(26+6*next(3)))
		for wy := top + 8; wy < horizon-16; wy += 16 {
			for wx := x + 6; wx+8 < x+width-4; wx += 12 {
				lit := color{44, 134, 124}
				if next(4) == 0 {
					lit = color{uint8(120 + next(60)), 96, 146}
				}
				s.base.fill(s.at(rect{wx, wy, wx + 6, wy + 8}), lit)
			}
		}
		x += width
	}
}

func (s *scene) drawStreet() {
	s.base.fill(s.at(rect{0, horizon, sheetWidth, horizon + 2}), s.dusk(84))
	s.base.fill(s.at(rect{0, laneTop - 16, sheetWidth, laneEnd + 16}), color{34, 128, 128})
	for x := 8; x < sheetWidth; x += 64 {
		s.base.fill(s.at(rect{x, laneEnd + 6, x + 32, laneEnd + 9}), color{96, 128, 128})
	}
	for i, c := range [...]color{
		{180, 128, 128}, {168, 44, 136}, {145, 147, 44}, {134, 63, 52}, {63, 193, 204}, {51, 109, 212}, {28, 212, 120},
	} {
		c.y = c.y/2 + 16
		c.cb, c.cr = c.cb/2+64, c.cr/2+64
		s.base.fill(s.at(rect{512 + 16*i, 344, 528 + 16*i, 352}), c)
	}
}

// write draws text that stays, from a place on the sheet on.
func (s *scene) write(x, y int, text string) {
	l := &lettering{w: s.even(smallCell), h: s.even(smallCell * 3 / 2)}
	for i := range len(text) {
		s.base.blend(l.glyph(text[i]), s.cellX(l, x, i), s.y(y)&^1, s.accent(190))
	}
}

func (s *scene) cellX(l *lettering, x, i int) int { return s.x(x)&^1 + i*l.w }

// draw brings the picture to the mark's moment.
func (s *scene) draw(m Mark) {
	s.drawPattern(m)
	now := m.Time
	s.update(0, &s.big, rect{x0: textLeft, y0: clockTop}, now.Format("15:04:05"))
	s.update(1, &s.small, rect{x0: textLeft + 8*bigCell*3/4, y0: clockTop + smallCell}, now.Format(".000"))
	s.update(2, &s.small, rect{x0: textLeft, y0: infoTop}, now.Format("2006-01-02 UTC"))
	s.update(3, &s.small, rect{x0: textLeft, y0: infoTop + smallCell}, fmt.Sprintf("CAM %d / %08d", m.Camera, m.Frame))
	s.drawCar(now)
	s.drawn = true
}

func (s *scene) drawPattern(m Mark) {
	cells := m.cells()
	for row := range patternRows {
		for col := range patternColumns {
			if s.drawn && cells[row][col] == s.cells[row][col] {
				continue
			}
			c := color{16, 128, 128}
			if cells[row][col] {
				c.y = 235
			}
			r := cellRect(s.pic.Width, s.pic.Height, row, col)
			s.pic.fill(r, c)
			s.enc.mark(r)
		}
	}
	s.cells = cells
}

// update writes the characters of a text that have changed. A text keeps its length.
func (s *scene) update(slot int, l *lettering, place rect, text string) {
	ink := color{225, 128, 128}
	if slot > 1 {
		ink.y = 165
	}
	for i := range len(text) {
		if s.drawn && text[i] == s.texts[slot][i] {
			continue
		}
		x, y := s.cellX(l, place.x0, i), s.y(place.y0)&^1
		r := rect{x, y, x + l.w, y + l.h}
		s.pic.copyFrom(s.base, r)
		s.pic.blend(l.glyph(text[i]), x, y, ink)
		s.enc.mark(r)
	}
	s.texts[slot] = text
}

// drawCar moves the car to where it is at a time.
func (s *scene) drawCar(now time.Time) {
	s.pic.copyFrom(s.base, s.car)
	s.enc.mark(s.car)
	way := now.UnixMicro() % carPeriod.Microseconds() * (sheetWidth + carWidth) / carPeriod.Microseconds()
	x := int(way) - carWidth
	s.car = s.at(rect{x, laneTop, x + carWidth, laneEnd})
	s.car.x0 &^= 1
	for _, part := range [...]struct {
		r rect
		c color
	}{
		{rect{8, 1, 32, 8}, s.accent(120)},
		{rect{11, 3, 19, 8}, color{60, 132, 124}},
		{rect{21, 3, 29, 8}, color{60, 132, 124}},
		{rect{0, 7, 44, 13}, s.accent(150)},
		{rect{40, 8, 44, 11}, color{225, 110, 136}},
		{rect{0, 8, 2, 11}, color{90, 104, 200}},
		{rect{6, 11, 14, 16}, color{20, 128, 128}},
		{rect{30, 11, 38, 16}, color{20, 128, 128}},
	} {
		r := s.at(part.r)
		left, top := s.car.x0, s.car.y0
		s.pic.fill(rect{left + r.x0, top + r.y0, left + r.x1, top + r.y1}, part.c)
	}
	s.enc.mark(s.car)
}
