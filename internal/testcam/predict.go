package testcam

// Intra prediction of H.264 (8.3.3 and 8.3.4), as far as encoder and decoder use it: vertical,
// horizontal and mean. The numbers are those of the luma mode; chroma has another order.
const (
	predVertical   = 0
	predHorizontal = 1
	predMean       = 2
	predModes      = 3
)

// chromaCode returns the number that intra_chroma_pred_mode gives to a mode.
func chromaCode(mode int) uint32 {
	switch mode {
	case predMean:
		return 0
	case predHorizontal:
		return 1
	default:
		return 2
	}
}

// chromaMode is the inverse of chromaCode; false for modes that are not used here.
func chromaMode(code uint32) (mode int, ok bool) {
	switch code {
	case 0:
		return predMean, true
	case 1:
		return predHorizontal, true
	case 2:
		return predVertical, true
	default:
		return 0, false
	}
}

// block is a square of samples in a plane, the part of it that belongs to one macroblock.
type block struct {
	plane  []byte
	stride int
	at     int // index of the top left sample
	size   int // 16 for luma, 8 for chroma
	left   bool
	above  bool // neighbours in the picture
}

// blocks returns the three blocks of the macroblock at column mx and row my.
func (p *Picture) blocks(mx, my int) (luma, cb, cr block) {
	half := mbSize / 2
	luma = block{p.Y, p.Stride, my*mbSize*p.Stride + mx*mbSize, mbSize, mx > 0, my > 0}
	cb = block{p.Cb, p.Stride / 2, my*half*p.Stride/2 + mx*half, half, mx > 0, my > 0}
	cr = cb
	cr.plane = p.Cr
	return luma, cb, cr
}

// predict writes the block's prediction from its neighbours into dst, row by row, and reports whether
// the neighbours that the mode needs are there.
func (b block) predict(mode int, dst []byte) bool {
	switch {
	case mode == predVertical && b.above:
		for y := range b.size {
			copy(dst[y*b.size:(y+1)*b.size], b.plane[b.at-b.stride:])
		}
	case mode == predHorizontal && b.left:
		for y := range b.size {
			paint(dst[y*b.size:], 0, b.size, b.plane[b.at+y*b.stride-1])
		}
	case mode == predMean && b.size == mbSize:
		paint(dst, 0, len(dst), b.mean(0, 0, b.size, b.left, b.above))
	case mode == predMean:
		b.predictChromaMean(dst)
	default:
		return false
	}
	return true
}

// predictChromaMean predicts each quarter of a chroma block on its own: the top right one from above if
// it can, the bottom left one from the left if it can (8.3.4.1 to 8.3.4.3).
func (b block) predictChromaMean(dst []byte) {
	half := b.size / 2
	for y := 0; y < b.size; y += half {
		for x := 0; x < b.size; x += half {
			left, above := b.left, b.above
			if x > 0 && y == 0 && above {
				left = false
			}
			if x == 0 && y > 0 && left {
				above = false
			}
			v := b.mean(x, y, half, left, above)
			for j := y; j < y+half; j++ {
				paint(dst[j*b.size:], x, x+half, v)
			}
		}
	}
}

// mean returns the rounded mean of the n samples above the block at column x and the n to the left of it
// at row y, of those that are asked for; 128 for neither.
func (b block) mean(x, y, n int, left, above bool) byte {
	sum, count := 0, 0
	if above {
		for i := range n {
			sum += int(b.plane[b.at-b.stride+x+i])
		}
		count += n
	}
	if left {
		for i := range n {
			sum += int(b.plane[b.at+(y+i)*b.stride-1])
		}
		count += n
	}
	if count == 0 {
		return 128
	}
	return byte((sum + count/2) / count)
}

// offset returns the one number by which the block differs from a prediction, in all samples alike.
func (b block) offset(pred []byte) (int, bool) {
	d := int(b.plane[b.at]) - int(pred[0])
	for y := range b.size {
		row := b.plane[b.at+y*b.stride:][:b.size]
		for x, v := range row {
			if int(v)-int(pred[y*b.size+x]) != d {
				return 0, false
			}
		}
	}
	return d, true
}

// store writes the prediction plus an offset into the plane.
func (b block) store(pred []byte, offset int) {
	for y := range b.size {
		row := b.plane[b.at+y*b.stride:][:b.size]
		for x := range row {
			row[x] = byte(min(max(int(pred[y*b.size+x])+offset, 0), 255))
		}
	}
}

// load copies raw samples into the plane.
func (b block) load(raw []byte) {
	for y := range b.size {
		copy(b.plane[b.at+y*b.stride:][:b.size], raw[y*b.size:])
	}
}
