package access

import (
	"errors"
	"testing"
)

func TestRecordDenied(t *testing.T) {
	f := open(t, t.TempDir())
	err := f.RecordDenied(SiteDenied{
		Site: "berlin", Address: "192.0.2.1:4711", Call: "fetch", Object: "segment 01",
		Reason: errors.New("not yours"), Missed: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := f.Audit(1)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	e := entries[0]
	if e.User != "site:berlin" || e.Address != "192.0.2.1" || e.Action != ActionSiteDenied ||
		e.Object != "(3 before this were not recorded) fetch segment 01: not yours" || e.At.IsZero() {
		t.Errorf("audited %+v", e)
	}
}
