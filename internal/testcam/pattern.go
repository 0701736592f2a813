package testcam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Mark is what a frame says about itself.
type Mark struct {
	Time   time.Time // of capture, in whole microseconds, UTC
	Camera uint16
	Frame  uint32
}

// The pattern covers the picture's full width and the top 8/45 of its height (64 of 360 rows), whatever
// its size, so a decoder needs no search and bears any scaling. Two columns on either side are a
// checkerboard from which the levels of black and white are taken; between them, row by row, stand the
// mark's bits, white for one: 64 of time in microseconds since 1970, 16 of camera, 32 of frame, and
// the CRC-32 (IEEE) of those 14 bytes; all with the most significant bit first.
const (
	patternColumns = 40
	patternRows    = 4
	patternSync    = 2 // columns on either side
	patternData    = patternColumns - 2*patternSync
	markBytes      = patternData * patternRows / 8

	// One row of cells is 2/45 of the picture's height: 16 of 360 rows, as wide as 1/40 of 640.
	patternRowNum, patternRowDen = 2, 45

	// minContrast is the least difference between white and black, of 219, that is still trusted.
	minContrast = 48
)

// The errors of [DecodePattern].
var (
	ErrNoPattern = errors.New("no pattern in the picture")
	ErrChecksum  = errors.New("pattern has a wrong checksum")
)

// bytes returns the 18 bytes that the pattern shows.
func (m Mark) bytes() [markBytes]byte {
	var b [markBytes]byte
	binary.BigEndian.PutUint64(b[0:], uint64(m.Time.UnixMicro()))
	binary.BigEndian.PutUint16(b[8:], m.Camera)
	binary.BigEndian.PutUint32(b[10:], m.Frame)
	binary.BigEndian.PutUint32(b[14:], crc32.ChecksumIEEE(b[:14]))
	return b
}

// cells tells which cells of the pattern are white.
func (m Mark) cells() [patternRows][patternColumns]bool {
	var cells [patternRows][patternColumns]bool
	b := m.bytes()
	for row := range patternRows {
		for col := range patternColumns {
			if isSync(col) {
				cells[row][col] = syncWhite(row, col)
				continue
			}
			bit := row*patternData + col - patternSync
			cells[row][col] = b[bit/8]>>(7-bit%8)&1 == 1
		}
	}
	return cells
}

func isSync(col int) bool          { return col < patternSync || col >= patternColumns-patternSync }
func syncWhite(row, col int) bool  { return (row+col)%2 == 0 }
func cellEdgeX(width, col int) int { return (width*col + patternColumns/2) / patternColumns }
func cellEdgeY(height, row int) int {
	return (height*row*patternRowNum + patternRowDen/2) / patternRowDen
}

// cellRect returns the cell's samples in a picture of the given size.
func cellRect(width, height, row, col int) rect {
	return rect{cellEdgeX(width, col), cellEdgeY(height, row), cellEdgeX(width, col+1), cellEdgeY(height, row+1)}
}

// DecodePattern reads the mark from a picture's luma, width by height samples in rows of stride bytes,
// at any scale down to cells of two samples. It returns [ErrNoPattern] where there is none and
// [ErrChecksum] where it is damaged; a mark that it returns is, but for one chance in four thousand
// million, the one that was drawn.
func DecodePattern(luma []byte, stride, width, height int) (Mark, error) {
	if width < 2*patternColumns || height < patternRowDen || stride < width || len(luma) < stride*(height-1)+width {
		return Mark{}, fmt.Errorf("decode pattern of %dx%d samples: %w", width, height, ErrNoPattern)
	}
	var level [patternRows][patternColumns]int
	var white, black int
	for row := range patternRows {
		for col := range patternColumns {
			level[row][col] = centreMean(luma, stride, cellRect(width, height, row, col))
			if isSync(col) && syncWhite(row, col) {
				white += level[row][col]
			} else if isSync(col) {
				black += level[row][col]
			}
		}
	}
	const syncs = patternRows * patternSync // of either colour
	threshold := (white + black) / (2 * syncs)
	if white-black < minContrast*syncs {
		return Mark{}, ErrNoPattern
	}
	var b [markBytes]byte
	for row := range patternRows {
		for col := range patternColumns {
			set := level[row][col] > threshold
			if isSync(col) {
				if set != syncWhite(row, col) {
					return Mark{}, ErrNoPattern
				}
			} else if bit := row*patternData + col - patternSync; set {
				b[bit/8] |= 1 << (7 - bit%8)
			}
		}
	}
	return parseMark(b)
}

func parseMark(b [markBytes]byte) (Mark, error) {
	if crc32.ChecksumIEEE(b[:14]) != binary.BigEndian.Uint32(b[14:]) {
		return Mark{}, ErrChecksum
	}
	return Mark{
		Time:   time.UnixMicro(int64(binary.BigEndian.Uint64(b[0:]))).UTC(),
		Camera: binary.BigEndian.Uint16(b[8:]),
		Frame:  binary.BigEndian.Uint32(b[10:]),
	}, nil
}

// centreMean returns the mean of the inner part of r, without a quarter at each side, where scaling and
// coding blur.
func centreMean(luma []byte, stride int, r rect) int {
	mx, my := (r.x1-r.x0)/4, (r.y1-r.y0)/4
	sum, n := 0, 0
	for y := r.y0 + my; y < r.y1-my; y++ {
		for x := r.x0 + mx; x < r.x1-mx; x++ {
			sum += int(luma[y*stride+x])
			n++
		}
	}
	return sum / max(n, 1)
}
