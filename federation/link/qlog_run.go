package link

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/quic-go/quic-go/qlogwriter/jsontext"

	"github.com/branchline-video/branchline/internal/clock"
)

const (
	// qlogQueue is how many events may wait for the disk. A connection never does: what is more is left out.
	qlogQueue = 8192
	// qlogPending is how many events of a connection are kept while it is not known whose it is: a handshake's.
	qlogPending = 128
	// qlogCheck is after how many bytes the disk's free space is looked at again.
	qlogCheck = 1 << 20
)

// qlogRun is one log of one link.
type qlogRun struct {
	q      *Qlog
	name   string
	until  time.Time
	length time.Duration
	left   atomic.Int64
	lost   atomic.Uint64
	events chan qlogEvent
	stop   chan struct{}
	done   chan struct{} // closed when the files are
	once   sync.Once
	tokens *regexp.Regexp

	files map[*qlogRecorder]*qlogFile // the writer's
	made  int                         // the writer's
	next  int64                       // of left, at which to look at the disk; the writer's
}

// qlogEvent is one event of a connection, or its end if it has none.
type qlogEvent struct {
	of *qlogRecorder
	at time.Time
	e  qlogwriter.Event
}

type qlogFile struct {
	f     *os.File
	began time.Time
}

func newQlogRun(q *Qlog, name string, length time.Duration, bytes int64) *qlogRun {
	r := &qlogRun{
		q: q, name: name, until: q.clock.Now().Add(length), length: length,
		events: make(chan qlogEvent, qlogQueue), stop: make(chan struct{}), done: make(chan struct{}),
		files: make(map[*qlogRecorder]*qlogFile), next: bytes - qlogCheck,
		// A stateless reset token ends a connection, and an address token proves an address.
		tokens: regexp.MustCompile(`"(stateless_reset_token|data)":"[0-9a-f]*"`),
	}
	r.left.Store(bytes)
	return r
}

func (r *qlogRun) end() { r.once.Do(func() { close(r.stop) }) }

func (r *qlogRun) add(e qlogEvent) {
	select {
	case r.events <- e:
	default:
		r.lost.Add(1)
	}
}

// write writes until the time, the bytes or the caller's patience are over.
func (r *qlogRun) write() error {
	timer := time.NewTimer(r.length)
	defer timer.Stop()
	defer func() {
		for _, f := range r.files {
			_ = f.f.Close() // what was written is all there is
		}
	}()
	for r.left.Load() > 0 {
		select {
		case e := <-r.events:
			if err := r.put(e); err != nil {
				return err
			}
		case <-timer.C:
			return nil
		case <-r.stop:
			return r.rest()
		}
	}
	return nil
}

// rest writes what was waiting for the disk when the log was ended.
func (r *qlogRun) rest() error {
	for range len(r.events) {
		if err := r.put(<-r.events); err != nil || r.left.Load() <= 0 {
			return err
		}
	}
	return nil
}

func (r *qlogRun) put(e qlogEvent) error {
	f := r.files[e.of]
	if e.e == nil {
		if f != nil {
			delete(r.files, e.of)
			return f.f.Close()
		}
		return nil
	}
	if f == nil {
		if r.made >= maxQlogConns {
			r.lost.Add(1)
			return nil
		}
		var err error
		if f, err = r.open(e); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	b.WriteByte(qlogwriter.RecordSeparator)
	enc := jsontext.NewEncoder(&b)
	for _, t := range []jsontext.Token{
		jsontext.BeginObject,
		jsontext.String("time"), jsontext.Float(float64(e.at.Sub(f.began).Nanoseconds()) / 1e6),
		jsontext.String("name"), jsontext.String(e.e.Name()), jsontext.String("data"),
	} {
		if err := enc.WriteToken(t); err != nil {
			return err
		}
	}
	if err := e.e.Encode(enc, e.at); err != nil {
		return err
	}
	if err := enc.WriteToken(jsontext.EndObject); err != nil {
		return err
	}
	return r.out(f, r.tokens.ReplaceAll(b.Bytes(), []byte(`"$1":""`)))
}

// out writes a whole event, or nothing of it.
func (r *qlogRun) out(f *qlogFile, text []byte) error {
	if left := r.left.Add(-int64(len(text))); left < 0 {
		return nil
	}
	if left := r.left.Load(); left < r.next {
		r.next = left - qlogCheck
		if free, err := r.q.free(r.q.dir); err != nil || free < qlogFree {
			return fmt.Errorf("the disk of %s has %d MB free: the log has ended", r.q.dir, free/1e6)
		}
	}
	_, err := f.f.Write(text)
	return err
}

// open makes the file of a connection.
func (r *qlogRun) open(e qlogEvent) (*qlogFile, error) {
	side := "hub"
	if e.of.client {
		side = "edge"
	}
	name := fmt.Sprintf("%s_%s_%s_%s%s", r.name, r.q.clock.Now().UTC().Format("20060102T150405.000Z"), e.of.id, side,
		qlogExt)
	f, err := os.OpenFile(filepath.Join(r.q.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, qlogMode)
	if err != nil {
		return nil, err
	}
	r.made++
	file := &qlogFile{f: f, began: e.at}
	r.files[e.of] = file
	var head bytes.Buffer
	qlogwriter.NewConnectionFileSeq(unclosed{&head}, e.of.client, e.of.id) // which writes how a file begins
	// The clock of the events is the first of them, not the time at which that was written.
	return file, r.out(file, head.Bytes())
}

type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// qlogRecorder listens to one connection, and passes on to inner, if there is one.
type qlogRecorder struct {
	inner  qlogwriter.Recorder
	client bool
	id     quic.ConnectionID

	tap atomic.Pointer[Tap] // nil while it is not known whose connection it is

	mu      sync.Mutex
	settled bool
	pending []qlogEvent
}

// tracer is a [quic.Config]'s for a connection that is dialled, on top of another trace.
func (t *Tap) tracer(w *watchdog) func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
	if t == nil {
		return w.trace
	}
	return func(_ context.Context, client bool, id quic.ConnectionID) qlogwriter.Trace {
		r := &qlogRecorder{inner: w, client: client, id: id, settled: true}
		r.tap.Store(t)
		return r
	}
}

// tracer is a [quic.Config]'s for connections that are accepted. It costs nothing while nothing is logged.
func (q *Qlog) tracer(ctx context.Context, client bool, id quic.ConnectionID) qlogwriter.Trace {
	s, _ := ctx.Value(slotKey{}).(*slot)
	if s == nil {
		return nil
	}
	s.r = &qlogRecorder{client: client, id: id}
	return s.r
}

// AddProducer is part of a trace.
func (r *qlogRecorder) AddProducer() qlogwriter.Recorder { return r }

// RecordEvent is part of a trace. The connection calls it for every packet.
func (r *qlogRecorder) RecordEvent(e qlogwriter.Event) {
	if r.inner != nil {
		r.inner.RecordEvent(e)
	}
	t := r.tap.Load()
	if t == nil {
		r.wait(e)
		return
	}
	if run := t.run.Load(); run != nil {
		run.add(qlogEvent{of: r, at: clock.Clock{}.Now(), e: e})
	}
}

// wait keeps an event of a connection of which it is not known whose it is.
func (r *qlogRecorder) wait(e qlogwriter.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.settled && len(r.pending) < qlogPending {
		r.pending = append(r.pending, qlogEvent{of: r, at: clock.Clock{}.Now(), e: e})
	}
}

// settle says whose connection it is; nil: nobody's who is logged.
func (r *qlogRecorder) settle(t *Tap) {
	r.mu.Lock()
	pending := r.pending
	r.pending, r.settled = nil, true
	r.mu.Unlock()
	if t == nil {
		return
	}
	if run := t.run.Load(); run != nil {
		for _, e := range pending {
			run.add(e)
		}
	}
	r.tap.Store(t)
}

// Close is part of a trace: the connection has ended.
func (r *qlogRecorder) Close() error {
	if t := r.tap.Load(); t != nil {
		if run := t.run.Load(); run != nil {
			run.add(qlogEvent{of: r})
		}
	}
	r.settle(nil)
	if r.inner != nil {
		return r.inner.Close()
	}
	return nil
}
