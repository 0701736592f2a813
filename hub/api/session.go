package api

import (
	"context"
	"net/http"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/access"
)

// strictServer answers the operations of the JSON API. Its methods translate between the API's words
// and the parts of the hub.
type strictServer struct{ *API }

var _ StrictServerInterface = strictServer{}

// record audits what the caller is about to do.
func (a *API) record(ctx context.Context, action access.Action, object string) error {
	c := callerOf(ctx)
	return a.Access.Record(access.Entry{User: c.User, Address: c.address, Action: action, Object: object})
}

// stamp is a time as the API tells it: UTC with microseconds.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// optional is a time that may not have happened.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = stamp(t)
	return &t
}

// optionalText is a text that is left out where it is empty.
func optionalText[T ~string](text T) *string {
	if text == "" {
		return nil
	}
	s := string(text)
	return &s
}

func (s strictServer) session(id access.Identity) Session {
	return Session{User: id.User, Role: Role(id.Role), Expires: optional(id.Expires), Demo: s.Demo != nil}
}

// cookie carries the session's token; an empty one removes it. How long the session goes on is the
// hub's to say, so the cookie lives as long as a session can.
func cookie(c caller, token string) *string {
	cookie := http.Cookie{
		Name: cookieName, Value: token, Path: "/", HttpOnly: true, Secure: c.secure,
		SameSite: http.SameSiteStrictMode, MaxAge: int(access.SessionMax.Seconds()),
	}
	if token == "" {
		cookie.MaxAge = -1
	}
	text := cookie.String()
	return &text
}

func (s strictServer) GetSession(ctx context.Context, _ GetSessionRequestObject) (GetSessionResponseObject, error) {
	return GetSession200JSONResponse(s.session(callerOf(ctx).Identity)), nil
}

func (s strictServer) Login(ctx context.Context, req LoginRequestObject) (LoginResponseObject, error) {
	c := callerOf(ctx)
	token, id, err := s.Access.Login(ctx, access.Attempt{
		User: req.Body.User, Password: req.Body.Password, Address: c.address,
	})
	if err != nil {
		return nil, err
	}
	answer := Login200JSONResponse{Body: s.session(id)}
	if req.Body.Bearer != nil && *req.Body.Bearer {
		answer.Body.Token = &token
	} else {
		answer.Headers.SetCookie = cookie(c, token)
	}
	return answer, nil
}

func (s strictServer) Logout(ctx context.Context, _ LogoutRequestObject) (LogoutResponseObject, error) {
	c := callerOf(ctx)
	if err := s.record(ctx, access.ActionLogout, ""); err != nil {
		return nil, err
	}
	if err := s.Access.Logout(c.token); err != nil {
		return nil, err
	}
	return Logout204Response{Headers: Logout204ResponseHeaders{SetCookie: cookie(c, "")}}, nil
}

func (s strictServer) ListUsers(context.Context, ListUsersRequestObject) (ListUsersResponseObject, error) {
	users, err := s.Access.Users()
	if err != nil {
		return nil, err
	}
	list := ListUsers200JSONResponse{Users: []User{}}
	for _, u := range users {
		list.Users = append(list.Users, User{Name: u.Name, Role: Role(u.Role)})
	}
	return list, nil
}

func (s strictServer) AddUser(ctx context.Context, req AddUserRequestObject) (AddUserResponseObject, error) {
	object := req.Body.Name + " " + string(req.Body.Role)
	if err := s.record(ctx, access.ActionUserSet, object); err != nil {
		return nil, err
	}
	password, err := s.Access.SetUser(ctx, req.Body.Name, access.Role(req.Body.Role))
	if err != nil {
		return nil, err
	}
	return AddUser201JSONResponse{User: req.Body.Name, Password: password}, nil
}

func (s strictServer) RemoveUser(ctx context.Context, req RemoveUserRequestObject) (RemoveUserResponseObject, error) {
	if err := s.record(ctx, access.ActionUserRemove, req.User); err != nil {
		return nil, err
	}
	if len(req.User) > branchline.MaxLabel {
		return nil, branchline.ErrNotFound
	}
	if err := s.Access.RemoveUser(req.User); err != nil {
		return nil, err
	}
	return RemoveUser204Response{}, nil
}

// The number of audit entries that one answer holds.
const (
	defaultAudit = 100
	maxAudit     = 1000
)

func (s strictServer) ListAudit(_ context.Context, req ListAuditRequestObject) (ListAuditResponseObject, error) {
	limit := defaultAudit
	if req.Params.Limit != nil {
		limit = min(max(*req.Params.Limit, 1), maxAudit)
	}
	entries, err := s.Access.Audit(limit)
	if err != nil {
		return nil, err
	}
	list := ListAudit200JSONResponse{Entries: []AuditEntry{}}
	for _, e := range entries {
		list.Entries = append(list.Entries, AuditEntry{
			At: stamp(e.At), User: e.User, Address: e.Address, Action: string(e.Action), Object: e.Object,
		})
	}
	return list, nil
}
