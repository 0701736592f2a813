package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/internal/testcam"
)

// maxCameras bounds the synthetic cameras of one process: as many as a large branch has.
const maxCameras = 64

type cameraCommand struct {
	Listen   string        `help:"TCP address; further cameras take the next ports. Port 0: any." default:"127.0.0.1:8554"`
	Count    int           `help:"How many cameras." default:"1"`
	Number   uint16        `help:"Number of the first camera, as its picture shows it." default:"1"`
	Name     string        `help:"Name in the picture."`
	Size     string        `help:"Width and height in pixels." default:"640x360"`
	Rate     int           `help:"Frames a second." default:"25"`
	GOP      int           `help:"Frames from key frame to key frame; 0: one second's." default:"0"`
	Bitrate  int           `help:"Reach this many kbit/s by padding." default:"0"`
	Sub      bool          `help:"Offer a second, smaller feed: 320x180 at 10 frames a second."`
	Tone     bool          `help:"Add a tone, AAC." default:"true" negatable:""`
	UDP      bool          `help:"Offer RTP over UDP too."`
	User     string        `help:"Demand this user and --password."`
	Password string        `help:"The password that --user needs."`
	For      time.Duration `help:"End after this time; 0: run until interrupted."`
	JSON     bool          `help:"Print one JSON line when ready."`
}

func (c *cameraCommand) config(i int, host string, port int) (testcam.Config, error) {
	width, height, ok := strings.Cut(c.Size, "x")
	w, errW := strconv.Atoi(width)
	h, errH := strconv.Atoi(height)
	if !ok || errW != nil || errH != nil {
		return testcam.Config{}, usageError{fmt.Errorf("--size %q: write for example 640x360", c.Size)}
	}
	if port != 0 {
		port += i
	}
	main := testcam.Stream{Path: testcam.DefaultPath, Width: w, Height: h, Rate: c.Rate, GOP: c.GOP, Bitrate: c.Bitrate}
	cfg := testcam.Config{
		Listen: net.JoinHostPort(host, strconv.Itoa(port)), UDP: c.UDP, Number: c.Number + uint16(i), Name: c.Name,
		User: c.User, Password: c.Password, Tone: c.Tone,
		Streams: []testcam.Stream{main},
	}
	if cfg.Name == "" {
		cfg.Name = fmt.Sprintf("camera %d", cfg.Number)
	}
	if c.Sub {
		cfg.Streams = append(cfg.Streams, testcam.Stream{Path: "sub", Width: 320, Height: 180, Rate: 10})
	}
	return cfg, nil
}

// Run serves the cameras until the terminal's context ends.
func (c *cameraCommand) Run(t *terminal) (err error) {
	host, portText, err := net.SplitHostPort(c.Listen)
	port, portErr := strconv.Atoi(portText)
	if err != nil || portErr != nil {
		return usageError{fmt.Errorf("--listen %q: write host:port", c.Listen)}
	}
	if c.Count < 1 || c.Count > maxCameras {
		return usageError{fmt.Errorf("--count %d: between 1 and %d", c.Count, maxCameras)}
	}
	if err := checkFor(c.For); err != nil {
		return err
	}
	var urls []string
	for i := range c.Count {
		cfg, err := c.config(i, host, port)
		if err != nil {
			return err
		}
		cfg.Logger = t.log
		camera, err := testcam.Open(cfg)
		if errors.Is(err, branchline.ErrInvalid) {
			return usageError{err}
		}
		if err != nil {
			return err
		}
		defer camera.Close()
		for _, s := range cfg.Streams {
			urls = append(urls, camera.StreamURL(s.Path))
		}
	}
	if c.JSON {
		err = printJSON(t.stdout, map[string]any{"urls": urls})
	} else {
		for _, u := range urls {
			fmt.Fprintln(t.stdout, u)
		}
	}
	if err != nil {
		return err
	}
	wait(t.ctx, c.For)
	return nil
}
