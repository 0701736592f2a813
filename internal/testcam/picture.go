package testcam

// Picture is a frame in planar YCbCr 4:2:0, limited range, BT.709. The planes cover whole macroblocks;
// Width and Height are what is shown of them.
type Picture struct {
	Width, Height int
	Stride        int // bytes in a row of Y; rows of Cb and Cr have half of it
	Y, Cb, Cr     []byte
}

// color is a point of the YCbCr space. Luma stays within 16 to 235, so that no sample is zero.
type color struct{ y, cb, cr uint8 }

const mbSize = 16 // luma samples along a macroblock's side

func newPicture(width, height int) *Picture {
	w, h := (width+mbSize-1)/mbSize*mbSize, (height+mbSize-1)/mbSize*mbSize
	return &Picture{Width: width, Height: height, Stride: w,
		Y: make([]byte, w*h), Cb: make([]byte, w*h/4), Cr: make([]byte, w*h/4)}
}

// rows returns the height of the planes in luma samples.
func (p *Picture) rows() int { return len(p.Y) / p.Stride }

// mbs returns the number of macroblocks across and down.
func (p *Picture) mbs() (across, down int) { return p.Stride / mbSize, p.rows() / mbSize }

// rect is a rectangle of luma samples, half open.
type rect struct{ x0, y0, x1, y1 int }

// clip returns the part of r that lies in the planes.
func (p *Picture) clip(r rect) rect {
	return rect{max(r.x0, 0), max(r.y0, 0), min(r.x1, p.Stride), min(r.y1, p.rows())}
}

// fill paints the rectangle in one colour.
func (p *Picture) fill(r rect, c color) {
	r = p.clip(r)
	for y := r.y0; y < r.y1; y++ {
		paint(p.Y[y*p.Stride:], r.x0, r.x1, c.y)
	}
	for y := r.y0 / 2; y < (r.y1+1)/2; y++ {
		paint(p.Cb[y*p.Stride/2:], r.x0/2, (r.x1+1)/2, c.cb)
		paint(p.Cr[y*p.Stride/2:], r.x0/2, (r.x1+1)/2, c.cr)
	}
}

func paint(row []byte, from, to int, v byte) {
	for x := from; x < to; x++ {
		row[x] = v
	}
}

// copyFrom copies the rectangle from a picture of the same size.
func (p *Picture) copyFrom(o *Picture, r rect) {
	r = p.clip(r)
	for y := r.y0; y < r.y1; y++ {
		copy(p.Y[y*p.Stride+r.x0:y*p.Stride+max(r.x1, r.x0)], o.Y[y*p.Stride+r.x0:])
	}
	half := p.Stride / 2
	for y := r.y0 / 2; y < (r.y1+1)/2; y++ {
		from, to := y*half+r.x0/2, y*half+max((r.x1+1)/2, r.x0/2)
		copy(p.Cb[from:to], o.Cb[from:])
		copy(p.Cr[from:to], o.Cr[from:])
	}
}

// mask is coverage, 0 to 255 a sample, with which a shape is blended into a picture.
type mask struct {
	w, h  int
	alpha []uint8
}

// blend paints the mask in one colour at x, y; both must be even.
func (p *Picture) blend(m mask, x, y int, c color) {
	for j := range m.h {
		for i := range m.w {
			if a := m.alpha[j*m.w+i]; a > 0 && x+i >= 0 && x+i < p.Stride && y+j >= 0 && y+j < p.rows() {
				mix(&p.Y[(y+j)*p.Stride+x+i], c.y, int(a))
			}
		}
	}
	for j := 0; j < m.h/2; j++ {
		for i := 0; i < m.w/2; i++ {
			k := 2*j*m.w + 2*i
			a := int(m.alpha[k]) + int(m.alpha[k+1]) + int(m.alpha[k+m.w]) + int(m.alpha[k+m.w+1])
			if cx, cy := x/2+i, y/2+j; a > 0 && cx >= 0 && cx < p.Stride/2 && cy >= 0 && cy < p.rows()/2 {
				mix(&p.Cb[cy*p.Stride/2+cx], c.cb, a/4)
				mix(&p.Cr[cy*p.Stride/2+cx], c.cr, a/4)
			}
		}
	}
}

func mix(dst *byte, v uint8, a int) { *dst = uint8((int(*dst)*(255-a) + int(v)*a + 127) / 255) }
