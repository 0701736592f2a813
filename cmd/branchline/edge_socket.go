package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
)

const (
	// edgeSocketName is the Unix socket in the edge's directory: who may open it may change what the edge does. What
	// only tells is at the address http, where anybody may ask.
	edgeSocketName = "edge.sock"
	// maxEdgeRequest bounds what is read of a request there, in bytes.
	maxEdgeRequest = 64 << 10
	// onlyHub is how the link of an edge whose hub has no name is called in the names of files.
	onlyHub = "hub"
)

// serveSocket answers at the edge's socket until ctx ends.
func serveSocket(ctx context.Context, b *branch) error {
	path := filepath.Join(b.dir, edgeSocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // left by a crash; the store is locked
		return fmt.Errorf("serve the edge's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("serve the edge's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("protect the edge's socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /qlog", b.qlogState)
	mux.HandleFunc("POST /qlog", b.startQlog)
	mux.HandleFunc("DELETE /qlog", b.stopQlog)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the edge's socket: %w", err)
	}
	return nil
}

// qlogRequest asks for a log of a link.
type qlogRequest struct {
	Seconds int   `json:"seconds"`
	Bytes   int64 `json:"bytes"`
}

// tapName returns how the link to a hub is called in the names of files.
func tapName(hub string) string {
	if hub == "" {
		return onlyHub
	}
	return hub
}

// linkOf returns the name of the link that a request is for, and whether there is one.
func (b *branch) linkOf(r *http.Request) (string, error) {
	asked := r.URL.Query().Get("hub")
	for _, u := range b.uplinks {
		if asked == "" || u.name == asked {
			return tapName(u.name), nil
		}
	}
	return "", fmt.Errorf("no hub %.40q is in the configuration: %w", asked, branchline.ErrNotFound)
}

func (b *branch) qlogState(w http.ResponseWriter, r *http.Request) {
	name, err := b.linkOf(r)
	if err != nil {
		answerLocal(w, nil, err)
		return
	}
	state, err := b.qlog.State(name)
	answerLocal(w, state, err)
}

func (b *branch) startQlog(w http.ResponseWriter, r *http.Request) {
	var asked qlogRequest
	name, err := b.linkOf(r)
	if err == nil {
		err = json.NewDecoder(io.LimitReader(r.Body, maxEdgeRequest)).Decode(&asked)
	}
	if most := int(link.MaxQlogTime / time.Second); err == nil && asked.Seconds > most {
		err = fmt.Errorf("%d seconds: at most %d: %w", asked.Seconds, most, branchline.ErrInvalid)
	}
	if err == nil {
		err = b.qlog.Start(name, time.Duration(asked.Seconds)*time.Second, asked.Bytes)
	}
	if err != nil {
		answerLocal(w, nil, err)
		return
	}
	b.log.Info("the link's packets are logged", "link", name, "seconds", asked.Seconds, "bytes", asked.Bytes)
	b.qlogState(w, r)
}

func (b *branch) stopQlog(w http.ResponseWriter, r *http.Request) {
	name, err := b.linkOf(r)
	if err != nil {
		answerLocal(w, nil, err)
		return
	}
	b.qlog.Stop(name)
	b.qlogState(w, r)
}

// answerLocal answers in JSON, an error in the form of the hub's API.
func answerLocal(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		v = map[string]any{"error": map[string]string{"message": err.Error()}}
	}
	_ = json.NewEncoder(w).Encode(v) // the receiver's loss
}

// localCall is a request to an edge.
type localCall struct {
	method, path string
	body         any
}

// callEdge exchanges JSON with the running edge over its socket.
func callEdge(t *terminal, socket string, asked localCall, into any) error {
	text, err := json.Marshal(asked.body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(t.ctx, asked.method, "http://edge"+asked.path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	res, err := socketClient(socket).Do(req)
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("reach the edge at %s: %w; is it running, and may you open that socket?", socket, op.Err)
	}
	if err != nil {
		return fmt.Errorf("ask the edge: %w", err)
	}
	defer res.Body.Close()
	return readAnswer(res, into)
}

// socketClient speaks HTTP over a Unix socket, with a new connection each time.
func socketClient(socket string) *http.Client {
	dialer := &net.Dialer{}
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}}
}
