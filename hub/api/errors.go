package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/hub/access"
)

var (
	errNothing     = errors.New("nothing is recorded in this range")
	errUnlinked    = errors.New("what is recorded there is at a site that is not linked")
	errCrossOrigin = errors.New("the request comes from a page of another origin")
	errNoPath      = errors.New("there is nothing at this path with this method")
)

// retryAfter is what a caller is told to wait where nothing better is known: a link that is down
// reconnects within seconds.
const retryAfter = 5 * time.Second

// answer is what a caller is told of an error.
type answer struct {
	status int
	code   ErrorCode
	advice string // what to do; from 500 on it is all that is told, as the error is the hub's
}

// answerTo is the one table from errors to the API.
func answerTo(err error) answer {
	var throttled access.Throttled
	var tooLong *http.MaxBytesError
	switch {
	case errors.Is(err, access.ErrCredentials):
		return answer{401, ErrorCodeUnauthenticated, "check user and password"}
	case errors.Is(err, access.ErrNoSession):
		return answer{401, ErrorCodeUnauthenticated, "log in with POST /api/v1/session"}
	case errors.Is(err, errCrossOrigin):
		return answer{403, ErrorCodeDenied, "send it from the hub's own page, or without Origin"}
	case errors.Is(err, branchline.ErrDenied):
		return answer{403, ErrorCodeDenied, "ask an administrator"}
	case errors.As(err, &throttled):
		return answer{429, ErrorCodeTooManyAttempts, "wait as long as Retry-After says"}
	case errors.Is(err, errNothing):
		return answer{404, ErrorCodeNothingRecorded, "the time line shows where something is"}
	case errors.Is(err, branchline.ErrNotFound), errors.Is(err, errNoPath):
		return answer{404, ErrorCodeNotFound, "check the name"}
	case errors.Is(err, branchline.ErrGone):
		return answer{410, ErrorCodeGone, "it existed and is no longer kept"}
	case errors.Is(err, branchline.ErrTooLarge), errors.As(err, &tooLong):
		return answer{413, ErrorCodeTooLarge, "ask for less at once"}
	case errors.Is(err, branchline.ErrInvalid), isParameter(err):
		return answer{400, ErrorCodeInvalid, "correct the request; openapi.yaml describes it"}
	case errors.Is(err, branchline.ErrMismatch):
		return answer{502, ErrorCodeMismatch, "the bytes that arrived are not those that were recorded; try again"}
	case refusalOf(err) != nil:
		return answer{503, ErrorCodeBudget, whyRefused(err) + "; take what is offered instead, or try again later"}
	case errors.Is(err, branchline.ErrBusy):
		return answer{503, ErrorCodeBusy, "too much is going on at once; try again when it is less"}
	case errors.Is(err, errUnlinked):
		return answer{503, ErrorCodeUnavailable, errUnlinked.Error() + "; try again when it is"}
	case errors.Is(err, branchline.ErrUnavailable), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, context.Canceled):
		return answer{503, ErrorCodeUnavailable, "it cannot be reached now; try again when the site is linked"}
	}
	return answer{500, ErrorCodeInternal, "the hub failed to do this; its log says more"}
}

// isParameter reports whether the error is one of the generated code's about a path or query.
func isParameter(err error) bool {
	var missing *RequiredParamError
	var malformed *InvalidParamFormatError
	var tooMany *TooManyValuesForParamError
	var unmarshal *UnmarshalingParamError
	return errors.As(err, &missing) || errors.As(err, &malformed) || errors.As(err, &tooMany) ||
		errors.As(err, &unmarshal)
}

// fail answers the request with the error. What is not the caller's to know goes to the log alone.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	answer := answerTo(err)
	message := fmt.Sprintf("%v; %s", err, answer.advice)
	if answer.status >= http.StatusInternalServerError {
		level := slog.LevelInfo
		if answer.code == ErrorCodeInternal {
			level = slog.LevelError
		}
		a.log.Log(r.Context(), level, "answer request", "method", r.Method, "path", r.URL.Path, "error", err)
		message = answer.advice
	}
	wait := retryAfter
	var throttled access.Throttled
	if errors.As(err, &throttled) {
		wait = throttled.After
	}
	if answer.status == http.StatusTooManyRequests || answer.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	if answer.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="branchline"`)
	}
	var body Error
	body.Error.Code, body.Error.Message, body.Error.Refusal = answer.code, message, refusalOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		a.log.Debug("write error answer", "error", err)
	}
}

// failBody answers a request whose body could not be read.
func (a *API) failBody(w http.ResponseWriter, r *http.Request, err error) {
	var tooLong *http.MaxBytesError
	if !errors.As(err, &tooLong) {
		err = fmt.Errorf("%w: %w", err, branchline.ErrInvalid)
	}
	a.fail(w, r, err)
}
