package testcam

// The tone is AAC-LC, mono. Its frequency is a whole number of periods in a frame, so that every frame
// has the same spectrum and one frame, made once, is sent over and over. A sine half way between two
// spectral lines, seen through the sine window, is those two lines alike and nothing else; so the frame
// has a single group of four lines with one word of Huffman code.
const (
	aacRate  = 48000 // samples a second
	aacFrame = 1024  // samples a frame

	// aacGain is the global gain, in steps of 1.5 dB: a tone at about -26 dB of full scale.
	aacGain = 181

	// aacBandLines is the width of the lowest scale factor bands at 48 kHz (ISO 14496-3, table 4.129).
	aacBandLines = 4

	// minToneBand and toneBands are the bands in which the cameras' tones lie: 328 to 891 Hz.
	minToneBand, toneBands = 3, 7
)

// toneBand returns the scale factor band of a camera's tone.
func toneBand(camera uint16) uint32 { return minToneBand + uint32(camera)%toneBands }

// ToneHz returns the frequency of a camera's tone: it tells cameras apart by ear and by spectrum.
func ToneHz(camera uint16) float64 {
	return float64(aacBandLines*toneBand(camera)+2) * aacRate / (2 * aacFrame)
}

// toneFrame returns the camera's raw AAC frame (ISO 14496-3, 4.4.2.1).
func toneFrame(camera uint16) []byte {
	band := toneBand(camera)
	var w bitWriter
	w.bits(3, 0) // single channel element
	w.bits(4, 0) // its tag
	w.bits(8, aacGain)
	w.bits(1, 0)      // ics_reserved_bit
	w.bits(2, 0)      // one long window
	w.bits(1, 0)      // of sine shape
	w.bits(6, band+1) // max_sfb
	w.bits(1, 0)      // predictor_data_present
	w.bits(4, 0)      // section: nothing
	w.bits(5, band)   // in the bands below
	w.bits(4, 1)      // section: codebook 1
	w.bits(5, 1)      // in one band
	w.bits(1, 0)      // its scale factor is the global gain
	w.bits(3, 0)      // no pulses, temporal noise shaping, gain control
	w.bits(7, toneCode)
	w.bits(3, 7) // end
	w.align()
	return w.buf
}

// toneCode is the word of codebook 1 for the lines 0, 1, 1, 0.
const toneCode = 0x70
