package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/quic-go/quic-go"
)

// ErrIntercepted means that something on the way answers in the peer's place, or changes the handshake.
// Nothing but a ClientHello was sent to it: no certificate, and nothing of any stream.
var ErrIntercepted = errors.New("something on the way intercepts the connection")

// CertificateError says whose certificate was not accepted, on the side that dialled. Nothing but a
// ClientHello was sent.
type CertificateError struct {
	Chain []*x509.Certificate // as the other side showed it; not verified
	Err   error               // what Options.TLS said of it
}

// Error returns what was said of the certificate.
func (e *CertificateError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *CertificateError) Unwrap() error { return e.Err }

// guarded returns the configuration with which to dial: TLS shows its certificate only after its
// VerifyConnection, which therefore also has to see that the protocol was agreed on.
func guarded(conf *tls.Config) *tls.Config {
	conf = conf.Clone()
	verify, protocols := conf.VerifyConnection, conf.NextProtos
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		if verify != nil {
			if err := verify(s); err != nil {
				return &CertificateError{Chain: s.PeerCertificates, Err: err}
			}
		}
		if !slices.Contains(protocols, s.NegotiatedProtocol) {
			return fmt.Errorf("%w: the protocol's name (ALPN) was taken out of the handshake", ErrIntercepted)
		}
		return nil
	}
	return conf
}

// handshakeError says what a failed handshake of the side that dialled means. The real peer keeps to TLS 1.3
// and to the protocol's name, and sends no alert before it has seen this side's certificate: whoever fails
// otherwise than by silence is somebody else.
func handshakeError(err error) error {
	var certificate *CertificateError
	var network net.Error
	var op *net.OpError
	switch {
	case errors.As(err, &certificate), errors.Is(err, ErrIntercepted), errors.Is(err, context.Canceled),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() != "tls: internal error":
		return fmt.Errorf("%w: it refuses the handshake: %w", ErrIntercepted, op.Err)
	case errors.As(err, &network):
		return err
	}
	return fmt.Errorf("%w: what answers does not speak TLS 1.3: %w", ErrIntercepted, err)
}

// quicHandshakeError is the same for QUIC.
func quicHandshakeError(err error) error {
	var certificate *CertificateError
	var failed *quic.TransportError
	if errors.As(err, &certificate) || errors.Is(err, ErrIntercepted) || !errors.As(err, &failed) ||
		!failed.ErrorCode.IsCryptoError() {
		return err
	}
	const (
		handshakeFailure      = 0x100 + 40
		protocolVersion       = 0x100 + 70
		noApplicationProtocol = 0x100 + 120
	)
	if failed.Remote && !slices.Contains([]quic.TransportErrorCode{
		handshakeFailure, protocolVersion, noApplicationProtocol}, failed.ErrorCode) {
		return err
	}
	return fmt.Errorf("%w: what answers does not keep to the handshake: %w", ErrIntercepted, err)
}
