package federation

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/branchline-video/branchline"
	wire "github.com/branchline-video/branchline/proto"
)

// FuzzDecoders reads any bytes as a request and as an answer, as they come off a stream, and hands what is in them to
// each decoder that [FuzzAnswer] leaves out: no panic, and every error says whose fault it is.
func FuzzDecoders(f *testing.F) {
	for _, m := range []proto.Message{
		&wire.Request{Call: &wire.Request_Hello{Hello: &wire.HelloRequest{MinVersion: 1, MaxVersion: 2,
			Software: "branchline", Instance: 1, Opens: 2, Feed: &wire.Position{Epoch: 1, Seq: 2}, Signer: make([]byte, 32),
			Hub: encodeHub(HubID{ID: [16]byte{1}, Name: "hq"})}}},
		&wire.Request{Call: &wire.Request_Hold{Hold: encodeHold(sampleHold())}},
		&wire.Request{Call: &wire.Request_Lock{Lock: &wire.LockRequest{Lock: encodeLock(sampleLock())}}},
		&wire.Request{Call: &wire.Request_Return{Return: &wire.ReturnRequest{Certificate: []byte{0x30}, Software: "x"}}},
		&wire.Request{Call: &wire.Request_Live{Live: &wire.LiveRequest{Stream: "a.b", Ticket: make([]byte, 16)}}},
		&wire.Request{Call: &wire.Request_Test{Test: &wire.TestRequest{What: 3, Milliseconds: 1 << 31}}},
		&wire.Answer{Body: &wire.Answer_Hello{Hello: &wire.HelloAnswer{Version: 2, Above: encodeWays(waysOf("a b"))}}},
		&wire.Answer{Body: &wire.Answer_Certificate{Certificate: &wire.CertificateAnswer{
			Certificate: []byte{1}, Former: []*wire.FormerAuthority{{UntilNs: -1}}}}},
	} {
		f.Add(framed(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req wire.Request
		if newReceiver(bytes.NewReader(b)).message(&req, maxRequest) == nil {
			decodeRequest(t, &req)
		}
		var a wire.Answer
		if newReceiver(bytes.NewReader(b)).message(&a, maxLive) == nil {
			_ = chosen(version(a.GetHello().GetVersion()), maxVersion)
			_, err := decodeWays(a.GetHello().GetAbove())
			isInvalid(t, err)
			decodeCertificate(a.GetCertificate())
		}
	})
}

func decodeRequest(t *testing.T, req *wire.Request) {
	describe(req)
	sinceOf(req)
	hello := req.GetHello()
	if v, err := negotiate(hello, maxVersion); err == nil && (v < minVersion || v > maxVersion) {
		t.Errorf("negotiated version %d", v)
	}
	if h := hello.GetHub(); h != nil {
		_, err := decodeHub(h)
		isInvalid(t, err)
	}
	_, err := decodeHold(req.GetHold(), "hub")
	isInvalid(t, err)
	_, err = decodeLock(req.GetLock().GetLock())
	isInvalid(t, err)
	claimed(req.GetReturn())
}

func isInvalid(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, branchline.ErrInvalid) && !errors.Is(err, branchline.ErrTooLarge) {
		t.Errorf("error %v does not say that the message is invalid", err)
	}
}
