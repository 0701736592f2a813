package testcam

import "bytes"

// bitWriter appends bits, most significant first, to a raw byte sequence payload.
type bitWriter struct {
	buf   []byte
	cache uint64 // the low n bits wait to be written
	n     uint
}

func (w *bitWriter) reset() { w.buf, w.cache, w.n = w.buf[:0], 0, 0 }

// bits appends the low count bits of v; count is at most 32.
func (w *bitWriter) bits(count uint, v uint32) {
	w.cache = w.cache<<count | uint64(v)&(1<<count-1)
	w.n += count
	for w.n >= 8 {
		w.n -= 8
		w.buf = append(w.buf, byte(w.cache>>w.n))
	}
}

func (w *bitWriter) flag(v bool) {
	if v {
		w.bits(1, 1)
	} else {
		w.bits(1, 0)
	}
}

// ue appends an unsigned Exp-Golomb code (H.264, 9.1).
func (w *bitWriter) ue(v uint32) {
	length := uint(0)
	for x := v + 1; x > 1; x >>= 1 {
		length++
	}
	w.bits(length, 0)
	w.bits(length+1, v+1)
}

// se appends a signed Exp-Golomb code (H.264, 9.1.1).
func (w *bitWriter) se(v int32) {
	if v > 0 {
		w.ue(uint32(2*v - 1))
	} else {
		w.ue(uint32(-2 * v))
	}
}

// align appends zero bits up to the next whole byte.
func (w *bitWriter) align() {
	if w.n > 0 {
		w.bits(8-w.n, 0)
	}
}

// trailing ends a payload: a one and zeros up to a whole byte.
func (w *bitWriter) trailing() {
	w.bits(1, 1)
	w.align()
}

// escape appends payload to nal with emulation prevention bytes (H.264, 7.4.1.1): within a NAL unit two
// zero bytes are never followed by a byte below four.
func escape(nal, payload []byte) []byte {
	for {
		i := bytes.Index(payload, []byte{0, 0})
		if i < 0 || i+2 >= len(payload) {
			return append(nal, payload...)
		}
		nal = append(nal, payload[:i+2]...)
		payload = payload[i+2:]
		if payload[0] > 3 {
			continue
		}
		nal = append(nal, 3)
	}
}

// unescape appends payload to raw without its emulation prevention bytes.
func unescape(raw, payload []byte) []byte {
	for {
		i := bytes.Index(payload, []byte{0, 0, 3})
		if i < 0 {
			return append(raw, payload...)
		}
		raw = append(raw, payload[:i+2]...)
		payload = payload[i+3:]
	}
}

// bitReader reads what bitWriter writes. Past the end it yields zeros and sets short.
type bitReader struct {
	buf   []byte
	pos   int // in bits
	short bool
}

func (r *bitReader) bits(count int) uint32 {
	v := uint32(0)
	for range count {
		v <<= 1
		if i := r.pos >> 3; i < len(r.buf) {
			v |= uint32(r.buf[i]>>(7-r.pos&7)) & 1
		} else {
			r.short = true
		}
		r.pos++
	}
	return v
}

// zeros counts and skips zero bits and the one that ends them; more than limit set short.
func (r *bitReader) zeros(limit int) int {
	for n := range limit + 1 {
		if r.bits(1) == 1 {
			return n
		}
	}
	r.short = true
	return 0
}

func (r *bitReader) ue() uint32 {
	n := r.zeros(31)
	return 1<<n - 1 + r.bits(n)
}

func (r *bitReader) se() int32 {
	v := r.ue()
	if v&1 == 1 {
		return int32(v/2) + 1
	}
	return -int32(v / 2)
}

// bytes returns the next n whole bytes, nil if there are not as many.
func (r *bitReader) bytes(n int) []byte {
	start := (r.pos + 7) / 8
	if start+n > len(r.buf) {
		r.short = true
		return nil
	}
	r.pos = 8 * (start + n)
	return r.buf[start : start+n]
}

// more reports whether there is more than the trailing bits (H.264, 7.2, more_rbsp_data).
func (r *bitReader) more() bool {
	last := len(r.buf) - 1
	for last >= 0 && r.buf[last] == 0 {
		last--
	}
	if last < 0 {
		return false
	}
	end := 8*last + 7
	for b := r.buf[last]; b&1 == 0; b >>= 1 {
		end--
	}
	return r.pos < end
}
