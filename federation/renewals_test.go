package federation

import (
	"errors"
	"testing"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	wire "github.com/branchline-video/branchline/proto"
)

// TestRenewalsAreBounded has an edge renew its certificate without a pause, for each of which the hub would write and
// sync the list of all its sites. It is told that the hub is busy, and another site renews as ever.
func TestRenewalsAreBounded(t *testing.T) {
	a := startAttacked(t)
	renew := func(conn link.Conn, csr []byte) error {
		_, err := certificate(t.Context(), conn,
			&wire.Request{Call: &wire.Request_Renew{Renew: &wire.RenewRequest{Csr: csr}}})
		return err
	}
	berlin, munich := a.node("berlin"), a.node("munich")
	csr, err := berlin.Request()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a new link does not help
		conn, _ := a.edge(berlin, link.CarrierQUIC)
		renewed := 0
		for range 50 {
			switch err := renew(conn, csr); {
			case err == nil:
				renewed++
			case !errors.Is(err, branchline.ErrBusy):
				t.Fatal(err)
			}
		}
		if renewed > renewBurst+5 {
			t.Errorf("renewed %d times of 50", renewed)
		}
	}
	conn, _ := a.edge(munich, link.CarrierQUIC)
	if csr, err = munich.Request(); err != nil {
		t.Fatal(err)
	}
	if err := renew(conn, csr); err != nil {
		t.Errorf("another site: %v", err)
	}
	a.lives("renewals without end")
}
