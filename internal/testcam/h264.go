package testcam

import "slices"

// Numbers of H.264 that encoder and decoder share.
const (
	nalSlice = 1
	nalIDR   = 5
	nalSEI   = 6
	nalSPS   = 7
	nalPPS   = 8

	sliceP = 5 // all slices of the picture are P
	sliceI = 7

	mbPCM     = 25 // mb_type in an I slice; in a P slice all of these are higher by mbInP
	mbPredict = 1  // plus the luma mode: Intra_16x16 without AC or chroma coefficients
	mbInP     = 5

	frameNumBits = 8

	// codedQP is the quantizer at which a macroblock's lone DC level L adds exactly L to every luma
	// sample (8.5.10: level scale 256 at QP 28, so the block's DC is 64 L, and (64 L + 32) >> 6 is L).
	codedQP = 28

	// pcmCoefficients is what an I_PCM neighbour counts in the choice of a coefficient table (9.2.1).
	pcmCoefficients = 16

	// dcOffsetBase is the first level code that is written with a suffix of 12 bits (9.2.2.1).
	dcOffsetBase = 30
)

// encoder turns pictures into access units. Each macroblock that has changed is coded exactly: as a
// prediction from its neighbours plus an offset where that gives its very samples, a few bits, and
// as raw samples where not. It is not safe for concurrent use.
type encoder struct {
	pic      *Picture
	rate     int
	changed  []bool // by macroblock, since the last picture; cleared by encode
	coeffs   []byte // by macroblock of this slice: 16 for raw samples, else 0
	frameNum uint32
	idrID    uint32
	w        bitWriter
	nal      []byte
}

func newEncoder(pic *Picture, rate int) *encoder {
	across, down := pic.mbs()
	return &encoder{pic: pic, rate: rate, changed: make([]bool, across*down), coeffs: make([]byte, across*down)}
}

// mark notes that the samples of the rectangle may have changed.
func (e *encoder) mark(r rect) {
	across, _ := e.pic.mbs()
	r = e.pic.clip(r)
	for y := r.y0 / mbSize; y < (r.y1+mbSize-1)/mbSize; y++ {
		for x := r.x0 / mbSize; x < (r.x1+mbSize-1)/mbSize; x++ {
			e.changed[y*across+x] = true
		}
	}
}

// encode returns the picture as one slice, a NAL unit that is valid until the next call.
func (e *encoder) encode(key bool) []byte {
	e.w.reset()
	e.sliceHeader(key)
	clear(e.coeffs)
	across, down := e.pic.mbs()
	skipped := uint32(0)
	for my := range down {
		for mx := range across {
			if !key && !e.changed[my*across+mx] {
				skipped++
				continue
			}
			base := uint32(0)
			if !key {
				e.w.ue(skipped)
				skipped, base = 0, mbInP
			}
			e.macroblock(mx, my, base)
		}
	}
	if skipped > 0 {
		e.w.ue(skipped)
	}
	e.w.trailing()
	clear(e.changed)
	header := byte(3<<5 | nalSlice)
	if key {
		header = 3<<5 | nalIDR
	}
	e.nal = escape(append(e.nal[:0], header), e.w.buf)
	return e.nal
}

// sliceHeader writes 7.3.3 for the whole picture in one slice.
func (e *encoder) sliceHeader(key bool) {
	w := &e.w
	w.ue(0) // first_mb_in_slice
	if key {
		e.frameNum = 0
		w.ue(sliceI)
	} else {
		e.frameNum = (e.frameNum + 1) % (1 << frameNumBits)
		w.ue(sliceP)
	}
	w.ue(0) // pic_parameter_set_id
	w.bits(frameNumBits, e.frameNum)
	if key {
		w.ue(e.idrID)
		e.idrID ^= 1
		w.bits(2, 0) // no_output_of_prior_pics_flag, long_term_reference_flag
	} else {
		w.bits(3, 0) // num_ref_idx_active_override_flag, ref_pic_list_modification_flag_l0, adaptive marking
	}
	w.se(0) // slice_qp_delta
	w.ue(1) // disable_deblocking_filter_idc: exact samples
}

func (e *encoder) macroblock(mx, my int, base uint32) {
	luma, cb, cr := e.pic.blocks(mx, my)
	if mode, offset, ok := fitLuma(luma); ok {
		if chroma, ok := fitChroma(cb, cr); ok {
			e.w.ue(base + mbPredict + uint32(mode))
			e.w.ue(chromaCode(chroma))
			e.w.se(0) // mb_qp_delta
			writeDC(&e.w, offset, e.neighbours(mx, my))
			return
		}
	}
	e.w.ue(base + mbPCM)
	e.w.align()
	for _, b := range [...]block{luma, cb, cr} {
		for y := range b.size {
			e.w.buf = append(e.w.buf, b.plane[b.at+y*b.stride:][:b.size]...)
		}
	}
	across, _ := e.pic.mbs()
	e.coeffs[my*across+mx] = pcmCoefficients
}

// neighbours returns nC of 9.2.1: the mean number of coefficients to the left and above.
func (e *encoder) neighbours(mx, my int) int {
	across, _ := e.pic.mbs()
	return coefficientContext(e.coeffs, across, mx, my)
}

func coefficientContext(coeffs []byte, across, mx, my int) int {
	at := my*across + mx
	switch {
	case mx > 0 && my > 0:
		return (int(coeffs[at-1]) + int(coeffs[at-across]) + 1) / 2
	case mx > 0:
		return int(coeffs[at-1])
	case my > 0:
		return int(coeffs[at-across])
	default:
		return 0
	}
}

// fitLuma looks for a mode from which the block differs by one number only.
func fitLuma(b block) (mode, offset int, ok bool) {
	var pred [mbSize * mbSize]byte
	for mode := range predModes {
		if b.predict(mode, pred[:]) {
			if d, ok := b.offset(pred[:]); ok {
				return mode, d, true
			}
		}
	}
	return 0, 0, false
}

// fitChroma looks for a mode that predicts both blocks exactly.
func fitChroma(cb, cr block) (mode int, ok bool) {
	var pred [mbSize * mbSize / 4]byte
	exact := func(b block, mode int) bool {
		if !b.predict(mode, pred[:]) {
			return false
		}
		d, same := b.offset(pred[:])
		return same && d == 0
	}
	for _, mode := range [...]int{predMean, predHorizontal, predVertical} {
		if exact(cb, mode) && exact(cr, mode) {
			return mode, true
		}
	}
	return 0, false
}

// writeDC writes the residual block of an Intra_16x16 macroblock that has at most one coefficient, the
// mean (9.2). The tables for few (nC < 2) and for many (nC >= 8) neighbouring coefficients suffice.
func writeDC(w *bitWriter, level, context int) {
	few := context < 2
	switch {
	case level == 0 && few:
		w.bits(1, 1)
	case level == 0:
		w.bits(6, 3)
	case level == 1 || level == -1:
		if few {
			w.bits(2, 1)
		} else {
			w.bits(6, 1)
		}
		w.flag(level < 0)
		w.bits(1, 1) // total_zeros 0
	default:
		if few {
			w.bits(6, 5)
		} else {
			w.bits(6, 0)
		}
		writeLevel(w, level)
		w.bits(1, 1)
	}
}

// writeLevel writes a level of at least 2 or at most -2, the only one of its block.
func writeLevel(w *bitWriter, level int) {
	code := 2*level - 4
	if level < 0 {
		code = -2*level - 3
	}
	switch {
	case code < 14:
		w.bits(uint(code), 0)
		w.bits(1, 1)
	case code < dcOffsetBase:
		w.bits(15, 1)
		w.bits(4, uint32(code-14))
	default:
		w.bits(16, 1)
		w.bits(12, uint32(code-dcOffsetBase))
	}
}

// sps returns the sequence parameter set (7.3.2.1), which tells players not to wait for reordering.
func (e *encoder) sps() []byte {
	var w bitWriter
	w.bits(8, 66)   // profile_idc: baseline
	w.bits(8, 0xc0) // and constrained baseline
	w.bits(8, e.level())
	w.ue(0)                // seq_parameter_set_id
	w.ue(frameNumBits - 4) // log2_max_frame_num_minus4
	w.ue(2)                // pic_order_cnt_type: output order is decoding order
	w.ue(1)                // max_num_ref_frames
	w.bits(1, 0)           // gaps_in_frame_num_value_allowed_flag
	across, down := e.pic.mbs()
	w.ue(uint32(across - 1))
	w.ue(uint32(down - 1))
	w.bits(2, 3) // frame_mbs_only_flag, direct_8x8_inference_flag
	right, bottom := e.pic.Stride-e.pic.Width, e.pic.rows()-e.pic.Height
	w.flag(right+bottom > 0)
	if right+bottom > 0 {
		w.ue(0)
		w.ue(uint32(right / 2))
		w.ue(0)
		w.ue(uint32(bottom / 2))
	}
	w.bits(1, 1) // vui_parameters_present_flag
	e.vui(&w)
	w.trailing()
	return escape([]byte{3<<5 | nalSPS}, w.buf)
}

// vui writes the usability information (E.1.1).
func (e *encoder) vui(w *bitWriter) {
	w.bits(2, 0) // no aspect ratio, no overscan
	w.bits(1, 1) // video_signal_type_present_flag
	w.bits(3, 5) // unspecified format
	w.bits(1, 0) // limited range
	w.bits(1, 1) // colour_description_present_flag
	for range 3 {
		w.bits(8, 1) // BT.709
	}
	w.bits(1, 0) // chroma_loc_info_present_flag
	w.bits(1, 1) // timing_info_present_flag
	w.bits(32, 1)
	w.bits(32, uint32(2*e.rate))
	w.bits(1, 1) // fixed_frame_rate_flag
	w.bits(3, 0) // no HRD parameters of either kind, pic_struct_present_flag
	w.bits(1, 1) // bitstream_restriction_flag
	w.bits(1, 1) // motion_vectors_over_pic_boundaries_flag
	w.ue(0)      // max_bytes_per_pic_denom: no promise, raw samples are large
	w.ue(0)      // max_bits_per_mb_denom
	w.ue(0)      // log2_max_mv_length_horizontal
	w.ue(0)      // log2_max_mv_length_vertical
	w.ue(0)      // max_num_reorder_frames
	w.ue(1)      // max_dec_frame_buffering
}

// level returns the lowest level_idc that has room for the picture and its rate (table A-1).
func (e *encoder) level() uint32 {
	across, down := e.pic.mbs()
	for _, l := range [...]struct{ idc, size, perSecond int }{
		{30, 1620, 40500}, {31, 3600, 108000}, {32, 5120, 216000}, {40, 8192, 245760},
		{42, 8704, 522240}, {50, 22080, 589824}, {51, 36864, 983040},
	} {
		if across*down <= l.size && across*down*e.rate <= l.perSecond {
			return uint32(l.idc)
		}
	}
	return 52
}

// pps returns the picture parameter set (7.3.2.2).
func (e *encoder) pps() []byte {
	var w bitWriter
	w.ue(0)      // pic_parameter_set_id
	w.ue(0)      // seq_parameter_set_id
	w.bits(2, 0) // entropy_coding_mode_flag: CAVLC; bottom_field_pic_order_in_frame_present_flag
	w.ue(0)      // num_slice_groups_minus1
	w.ue(0)      // num_ref_idx_l0_default_active_minus1
	w.ue(0)      // num_ref_idx_l1_default_active_minus1
	w.bits(3, 0) // no weighted prediction
	w.se(codedQP - 26)
	w.se(0)      // pic_init_qs_minus26
	w.se(0)      // chroma_qp_index_offset
	w.bits(1, 1) // deblocking_filter_control_present_flag
	w.bits(2, 0) // constrained_intra_pred_flag, redundant_pic_cnt_present_flag
	w.trailing()
	return escape([]byte{3<<5 | nalPPS}, w.buf)
}

// padding returns a NAL unit of about size bytes that means nothing: a user data SEI message, which unlike
// filler data is allowed in MP4 files and kept by muxers.
func padding(size int) []byte {
	const uuid = "Branchline-pad-1" // 16 bytes
	const overhead = 1 + 1 + len(uuid) + 1
	payload := max(size-overhead-(size+254)/255, 0) + len(uuid)
	nal := make([]byte, 0, size+overhead)
	nal = append(nal, nalSEI, 5)
	for n := payload; ; n -= 255 {
		if n < 255 {
			nal = append(nal, byte(n))
			break
		}
		nal = append(nal, 255)
	}
	nal = append(nal, uuid...)
	nal = append(nal, slices.Repeat([]byte{0x55}, payload-len(uuid))...)
	return append(nal, 0x80)
}
