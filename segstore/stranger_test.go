package segstore_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/segstore"
	"github.com/branchline-video/branchline/segstore/crypt"
)

// A reader of segment files as a stranger would write it from docs/reference/segment.md, with nothing of
// this project.

var errStranger = errors.New("not as the page says")

func be32(b []byte) int { return int(binary.BigEndian.Uint32(b)) }

// cutBox takes the box with its size and magic at the end off the end of file.
func cutBox(file []byte, kind, magic string) (rest, box []byte, err error) {
	n := len(file)
	if n < 8 || string(file[n-4:]) != magic {
		return file, nil, nil
	}
	size := be32(file[n-8:])
	if size < 32 || size > n || be32(file[n-size:]) != size ||
		string(file[n-size+4:n-size+24]) != "uuidbrnchline\x00"+kind || file[n-size+24] != 1 ||
		kind != "FOOTER" && be32(file[n-size+24:]) != 1<<24 {
		return nil, nil, fmt.Errorf("%s box: %w", kind, errStranger)
	}
	return file[:n-size], file[n-size:], nil
}

// strangerReads verifies a file, and returns the init part and the fragments, in plain, by their number.
func strangerReads(file, key []byte) (init []byte, fragments map[int][]byte, err error) {
	rest, encryption, err := cutBox(file, "CRYPTO", "BLen")
	if err != nil {
		return nil, nil, err
	}
	rest, excerpt, err := cutBox(rest, "EXCRPT", "BLex")
	if err != nil {
		return nil, nil, err
	}
	rest, footer, err := cutBox(rest, "FOOTER", "BLsg")
	if err != nil || footer == nil {
		return nil, nil, fmt.Errorf("no footer: %w", errors.Join(err, errStranger))
	}
	statement, proof := footer[24:len(footer)-136], footer[len(footer)-136:]
	hash := sha256.Sum256(statement)
	if !bytes.Equal(hash[:], proof[:32]) ||
		!ed25519.Verify(proof[32:64], append([]byte("branchline segment\x00"), hash[:]...), proof[64:128]) {
		return nil, nil, fmt.Errorf("hash or signature: %w", errStranger)
	}
	n, size := be32(footer[28:]), be32(footer[60:])
	if size > len(rest) || sha256.Sum256(rest[:size]) != [32]byte(footer[80:112]) {
		return nil, nil, fmt.Errorf("init part: %w", errStranger)
	}
	a := int(binary.BigEndian.Uint16(footer[144:]))
	c := int(binary.BigEndian.Uint16(footer[146+a:]))
	table := footer[148+a+c : len(footer)-136]
	if len(table) != 64*n || excerpt != nil && (be32(excerpt[28:]) != n || len(excerpt) != 40+(n+7)/8) {
		return nil, nil, fmt.Errorf("table: %w", errStranger)
	}
	fragments = make(map[int][]byte)
	at, offset := size, size
	for i := range n {
		row := table[64*i:]
		length := be32(row[8:])
		if int(binary.BigEndian.Uint64(row)) != offset {
			return nil, nil, fmt.Errorf("row %d: %w", i, errStranger)
		}
		if excerpt == nil || excerpt[32+i/8]>>(i%8)&1 == 1 {
			if at+length > len(rest) {
				return nil, nil, fmt.Errorf("fragment %d: %w", i, errStranger)
			}
			data := rest[at : at+length]
			if encryption != nil {
				if data, err = strangerDecrypts(data, key, encryption, footer[32:48], offset); err != nil {
					return nil, nil, err
				}
			}
			sum := be32(data[length-4:])
			if sha256.Sum256(data) != [32]byte(row[32:64]) ||
				int(crc32.Checksum(data[:length-32], crc32.MakeTable(crc32.Castagnoli))) != sum {
				return nil, nil, fmt.Errorf("fragment %d: %w", i, errStranger)
			}
			fragments[i] = data
			at += length
		}
		offset += length
	}
	if at != len(rest) {
		return nil, nil, fmt.Errorf("%d bytes before the footer: %w", len(rest)-at, errStranger)
	}
	return rest[:size], fragments, nil
}

func strangerDecrypts(data, key, box, id []byte, offset int) ([]byte, error) {
	which := sha256.Sum256(append([]byte("branchline store key\x00"), key...))
	if !bytes.Equal(which[:16], box[32:48]) || be32(box[28:]) != 1 {
		return nil, fmt.Errorf("another key: %w", errStranger)
	}
	own, err := hkdf.Key(sha256.New, key, id, "branchline data key\x00", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	bound := append([]byte("branchline fragment\x00"), id...)
	bound = binary.BigEndian.AppendUint64(bound, uint64(offset))
	bound = binary.BigEndian.AppendUint32(bound, uint32(len(data)))
	end := len(data) - 16
	plain, err := gcm.Open(nil, data[end:end+12], data[:end], bound)
	if err != nil || string(data[end+12:]) != "BLe1" {
		return nil, fmt.Errorf("fragment at %d: %w", offset, errors.Join(err, errStranger))
	}
	sum := crc32.Checksum(plain, crc32.MakeTable(crc32.Castagnoli))
	plain = append(plain, "\x00\x00\x00\x20uuidbrnchline\x00CRC32C\x01\x00\x00\x00"...)
	return binary.BigEndian.AppendUint32(plain, sum), nil
}

// TestStrangerReads gives the stranger what a store wrote: the golden file, and the same recording
// encrypted, as an excerpt, thinned, and encrypted and thinned.
func TestStrangerReads(t *testing.T) {
	golden, err := os.ReadFile("testdata/segment.mp4")
	if err != nil {
		t.Fatal(err)
	}
	init, whole, err := strangerReads(golden, nil)
	if err != nil || len(whole) < 3 {
		t.Fatalf("golden file: %d fragments: %v", len(whole), err)
	}
	key := make([]byte, 32)
	rand.Read(key)
	footer, err := segstore.ReadFooter(bytes.NewReader(golden), int64(len(golden)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name            string
		encrypted, thin bool
	}{{"plain", false, false}, {"encrypted", true, false}, {"thinned", false, true}, {"both", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			var opt segstore.Options
			if c.encrypted {
				if opt.Keys, err = crypt.Parse("test", []byte(hex.EncodeToString(key))); err != nil {
					t.Fatal(err)
				}
			}
			written := storeWrites(t, opt, footer, golden, c.thin)
			gotInit, got, err := strangerReads(written, key)
			if err != nil || !bytes.Equal(gotInit, init) {
				t.Fatal(err)
			}
			for i, row := range footer.Fragments {
				data, ok := got[i]
				if want := row.Key || !c.thin; ok != want || ok && !bytes.Equal(data, whole[i]) {
					t.Errorf("fragment %d: there %v, want %v", i, ok, want)
				}
			}
			for at := 0; at < len(written); at += 7 {
				written[at] ^= 4
				if _, _, err := strangerReads(written, key); err == nil {
					t.Errorf("bit flipped in byte %d is not found", at)
				}
				written[at] ^= 4
			}
		})
	}
}

// storeWrites puts the segment through a store, and returns its file.
func storeWrites(t *testing.T, opt segstore.Options, f segstore.Footer, file []byte, thin bool) []byte {
	t.Helper()
	dir := t.TempDir()
	s, err := segstore.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	errs := []error{s.Begin(f.Stream, branchline.SegmentStart{ID: f.ID, Stream: f.Stream, Run: f.Run,
		Number: f.Number, Start: f.Span.Start, Codecs: f.Codecs, Init: file[:f.InitSize]})}
	for _, row := range f.Fragments {
		errs = append(errs, s.Put(f.ID, row, file[row.Offset:row.End()]))
	}
	errs = append(errs, s.Seal(f.ID, branchline.SegmentSeal{ID: f.ID, Hash: f.Hash, Footer: file[f.End():],
		Size: int64(len(file))}))
	if thin {
		errs = append(errs, s.Thin(f.ID))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(segstore.Path(dir, f.Stream, f.ID, f.Span.Start))
	if err != nil {
		t.Fatal(err)
	}
	return written
}

// TestPageShowsAnExcerptBox: the bytes on the page are those of such a box.
func TestPageShowsAnExcerptBox(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "reference", "segment.md"))
	if err != nil {
		t.Fatal(err)
	}
	var box []byte
	for line := range bytes.Lines(page) {
		if len(line) > 10 && string(line[:6]) == "    00" {
			b, err := hex.DecodeString(string(bytes.ReplaceAll(bytes.TrimSpace(line[10:]), []byte(" "), nil)))
			if err != nil {
				t.Fatal(err)
			}
			box = append(box, b...)
		}
	}
	_, cut, err := cutBox(box, "EXCRPT", "BLex")
	if err != nil || len(cut) != len(box) || be32(cut[28:]) != 4 || cut[32] != 5 {
		t.Errorf("box of %d bytes, %x: %v", len(box), box, err)
	}
}
