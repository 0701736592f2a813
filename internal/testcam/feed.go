package testcam

import (
	"context"
	"fmt"
	"time"

	"github.com/branchline-video/branchline/internal/clock"
)

// maxLate is how late a frame may be sent; past it the process was stopped or starved, and frames are
// left out so that what is sent is again recent.
const maxLate = 2 * time.Second

// grid is a row of instants at a constant rate: number n is at start plus n intervals.
type grid struct {
	start    time.Time
	num, den int64 // an interval is num/den seconds
}

func (g grid) at(n int64) time.Time {
	whole, rest := n*g.num/g.den, n*g.num%g.den
	return g.start.Add(time.Duration(whole)*time.Second + time.Duration(rest)*time.Second/time.Duration(g.den))
}

// wait waits until instant n and returns its number, or that of a later instant if n is long past.
func (g grid) wait(ctx context.Context, c clock.Clock, n int64) (int64, error) {
	now := c.Now()
	if now.Sub(g.at(n)) > maxLate {
		n = int64(now.Sub(g.start).Seconds()*float64(g.den)/float64(g.num)) + 1
	}
	timer := time.NewTimer(g.at(n).Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return n, nil
	case <-ctx.Done():
		return n, fmt.Errorf("wait for a frame: %w", ctx.Err())
	}
}

// feed makes the frames of one stream and sends them. Only its run method touches it.
type feed struct {
	camera   *Camera
	out      *outlet
	grid     grid
	film     *Film
	untilKey int // frames until the next key frame
}

func newFeed(c *Camera, out *outlet, start time.Time) *feed {
	return &feed{
		camera: c, out: out,
		grid: grid{start: start, num: 1, den: int64(out.stream.Rate)},
		film: newFilm(out.stream, c.cfg.Number, c.cfg.Name),
	}
}

// run sends frames until ctx ends.
func (f *feed) run(ctx context.Context) error {
	for n := int64(0); ; n++ {
		var err error
		if n, err = f.grid.wait(ctx, f.camera.cfg.Clock, n); err != nil {
			return nil //nolint:nilerr // the end of ctx is the normal end
		}
		if err := f.frame(uint32(n)); err != nil {
			return fmt.Errorf("send frame %d of stream %s: %w", n, f.out.stream.Path, err)
		}
	}
}

func (f *feed) frame(n uint32) error {
	faults := f.camera.Faults()
	if faults.Freeze {
		f.untilKey = 0
		return nil
	}
	key := f.untilKey <= 0
	f.untilKey--
	if faults.SkipEvery > 0 && n%faults.SkipEvery == 0 {
		return nil
	}
	captured := f.grid.at(int64(n))
	shown := captured.Add(faults.ClockOffset)
	au := f.film.AccessUnit(shown, n, key)
	if faults.CorruptEvery > 0 && n%faults.CorruptEvery == 0 {
		corrupt(au[len(au)-1])
	}
	if key {
		f.untilKey = f.out.stream.GOP - 1
	}
	return f.out.sendVideo(au, moment{captured, shown, key})
}

// corrupt inverts a stretch of a coded slice, as a bad cable would: behind its header, where the pattern
// is coded, since raw samples further on would only change colour.
func corrupt(slice []byte) {
	const from, to = 8, 24
	for i := from; i < min(to, len(slice)); i++ {
		slice[i] ^= 0xff
	}
}

// tone sends the audio track of one stream. Only its run method touches it.
type tone struct {
	camera *Camera
	out    *outlet
	grid   grid
	frame  []byte
}

func newTone(c *Camera, out *outlet, start time.Time) *tone {
	return &tone{camera: c, out: out, frame: toneFrame(c.cfg.Number),
		grid: grid{start: start, num: aacFrame, den: aacRate}}
}

// run sends audio frames until ctx ends, each when its last sample is captured.
func (t *tone) run(ctx context.Context) error {
	const framesPerReport = aacRate / aacFrame // about a second
	untilReport := 0
	for n := int64(0); ; n++ {
		end, err := t.grid.wait(ctx, t.camera.cfg.Clock, n+1)
		if err != nil {
			return nil //nolint:nilerr // the end of ctx is the normal end
		}
		n = end - 1
		faults := t.camera.Faults()
		if faults.Freeze {
			untilReport = 0
			continue
		}
		captured := t.grid.at(n)
		shown := captured.Add(faults.ClockOffset)
		if untilReport--; untilReport < 0 {
			untilReport = framesPerReport
		}
		if err := t.out.sendAudio(t.frame, moment{captured, shown, untilReport == framesPerReport}); err != nil {
			return fmt.Errorf("send audio frame %d of stream %s: %w", n, t.out.stream.Path, err)
		}
	}
}
