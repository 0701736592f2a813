package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"

	"github.com/branchline-video/branchline"
	"github.com/branchline-video/branchline/federation/link"
	"github.com/branchline-video/branchline/hub/policy"
	"github.com/branchline-video/branchline/segstore/retain"
)

// maxConfig bounds a configuration file, in bytes: some thousand cameras.
const maxConfig = 4 << 20

// fieldError is a value that is well-formed YAML and still wrong. path is in go-yaml's notation,
// such as $.cameras[2].url, and serves to find the line.
type fieldError struct {
	path string
	err  error
}

func (e *fieldError) Error() string { return strings.TrimPrefix(e.path, "$.") + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

func wrong(path, format string, args ...any) error {
	return &fieldError{path: path, err: fmt.Errorf(format, args...)}
}

// configuration is a file's content that can check itself, filling in defaults.
type configuration interface{ check() error }

// readConfig reads the YAML file at path into c. Unknown keys and bad values are usage errors that
// name the file, the line and the field.
func readConfig(path string, c configuration) error {
	f, err := os.Open(path)
	if err != nil {
		return usageError{fmt.Errorf("read configuration: %w", err)}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return usageError{fmt.Errorf("read configuration: %w", err)}
	}
	if len(text) > maxConfig {
		return usageError{fmt.Errorf("read configuration %s: over %d bytes", path, maxConfig)}
	}
	if err := parseConfig(path, text, c); err != nil {
		return usageError{err}
	}
	return nil
}

func parseConfig(path string, text []byte, c configuration) error {
	err := yaml.NewDecoder(strings.NewReader(string(text)), yaml.Strict()).Decode(c)
	if err != nil && !errors.Is(err, io.EOF) { // EOF: an empty file, all defaults
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			pos := at.GetToken().Position
			return fmt.Errorf("%s:%d:%d: %s\n%s", path, pos.Line, pos.Column, at.GetMessage(),
				yaml.FormatError(err, false, true))
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	err = c.check()
	if bad := (*fieldError)(nil); errors.As(err, &bad) {
		return fmt.Errorf("%s:%d: %w", path, lineOf(text, bad.path), err)
	}
	return err
}

// lineOf returns the line on which a field stands, or where its nearest existing parent does.
func lineOf(text []byte, path string) int {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return 1
	}
	for path != "$" && path != "" {
		if p, err := yaml.PathString(path); err == nil {
			if node, err := p.FilterFile(file); err == nil && node != nil {
				return node.GetToken().Position.Line
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 1
}

// edgeFile is the configuration of an edge.
type edgeFile struct {
	StorageFile `yaml:",inline"`

	Listen   string            `yaml:"http"`
	Segment  string            `yaml:"segment"` // a Go duration, "1m"
	Allow    allowFile         `yaml:"allow"`
	Identity *edgeIdentityFile `yaml:"identity"`
	Hubs     []homeFile        `yaml:"hubs"` // none: one, without a name
	Budget   uplinkFile        `yaml:"budget"`
	Uplinks  []wayFile         `yaml:"uplinks"`
	Cameras  []cameraFile      `yaml:"cameras"`

	segment time.Duration // Segment, parsed
	uplinks []link.Uplink // Uplinks, parsed
}

// allowFile says what the site lets its hub do beyond looking and fetching. What is left out is allowed:
// both only keep footage from being deleted.
type allowFile struct {
	Hold *bool `yaml:"hold"`
	Lock *bool `yaml:"lock"`
}

// cameraFile is one camera of an edge.
type cameraFile struct {
	ID    string `yaml:"id"`
	Name  string `yaml:"name"`
	URL   string `yaml:"url"`
	Sub   string `yaml:"sub"`
	Audio *bool  `yaml:"audio"`

	Retention *limitsFile `yaml:"retention"`
}

// The bounds of a segment's length: shorter ones cost a sync each, longer ones delay what follows a
// seal.
const (
	defaultSegment = time.Minute
	minSegment     = 2 * time.Second
	maxSegment     = 10 * time.Minute
)

func (c *edgeFile) check() error {
	if c.Dir == "" {
		return wrong("$.dir", "say where to record, for example /var/lib/branchline/edge")
	}
	if err := c.StorageFile.check(); err != nil {
		return err
	}
	c.segment = defaultSegment
	if c.Segment != "" {
		var err error
		if c.segment, err = time.ParseDuration(c.Segment); err != nil {
			return wrong("$.segment", "%q is no duration: write for example 60s or 1m", c.Segment)
		}
	}
	if c.segment < minSegment || c.segment > maxSegment {
		return wrong("$.segment", "%v is not between %v and %v", c.segment, minSegment, maxSegment)
	}
	if c.Listen != "" {
		if err := checkAddress("$.http", c.Listen); err != nil {
			return err
		}
	}
	var err error
	if c.uplinks, err = checkUplinks(c.Uplinks); err != nil {
		return err
	}
	if err := c.Budget.check("$.budget"); err != nil {
		return err
	}
	if err := checkHomes("$.hubs", c.Hubs); err != nil {
		return err
	}
	if err := c.Identity.check("$.identity"); err != nil {
		return err
	}
	seen := map[string]int{}
	for i := range c.Cameras {
		at := fmt.Sprintf("$.cameras[%d]", i)
		if err := c.Cameras[i].check(at); err != nil {
			return err
		}
		if first, twice := seen[c.Cameras[i].ID]; twice {
			return wrong(at+".id", "camera %q is already number %d of this list", c.Cameras[i].ID, first+1)
		}
		seen[c.Cameras[i].ID] = i
	}
	return c.checkRetention()
}

// checkRetention fills in retain: cameras with limits of their own first.
func (c *edgeFile) checkRetention() error {
	if c.Retention != nil && c.Retention.Streams != nil {
		return wrong("$.retention.streams", "is for a hub: say it under the camera, as cameras[].retention")
	}
	rules, err := c.Retention.rules("$.retention")
	if err != nil {
		return err
	}
	general := c.Retention
	if general == nil {
		general = &retentionFile{}
	}
	c.storage.Retention = retain.Rules{Quota: rules.Quota, Free: rules.Free}
	for i, camera := range c.Cameras {
		if camera.Retention == nil {
			continue
		}
		at := fmt.Sprintf("$.cameras[%d].retention", i)
		if camera.Retention.Streams != "" {
			return wrong(at+".streams", "is for a hub: this is for the streams of the camera anyhow")
		}
		rule, err := general.limit(camera.Retention, camera.ID+".*", at)
		if err != nil {
			return err
		}
		c.storage.Retention.Rules = append(c.storage.Retention.Rules, rule)
	}
	c.storage.Retention.Rules = append(c.storage.Retention.Rules, rules.Rules...)
	return nil
}

func (c *cameraFile) check(at string) error {
	if err := branchline.CameraID(c.ID).Check(); err != nil || strings.Contains(c.ID, ".") {
		return wrong(at+".id", "%q is no camera id: use a-z, 0-9 and inner '-', at most %d", c.ID, branchline.MaxLabel)
	}
	if c.Name == "" {
		c.Name = c.ID
	}
	if len(c.Name) > branchline.MaxName {
		return wrong(at+".name", "longer than %d bytes", branchline.MaxName)
	}
	if c.URL == "" {
		return wrong(at+".url", "camera %q needs the address of its stream, rtsp://…", c.ID)
	}
	if err := checkRTSP(at+".url", c.URL); err != nil {
		return err
	}
	if c.Sub != "" {
		return checkRTSP(at+".sub", c.Sub)
	}
	return nil
}

// checkRTSP never repeats the address: it may hold a password.
func checkRTSP(path, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return wrong(path, "is no URL: percent-encode special characters of user and password")
	}
	if u.Scheme != "rtsp" && u.Scheme != "rtsps" {
		return wrong(path, "starts with %q, expected rtsp:// or rtsps://", u.Scheme)
	}
	if u.Host == "" {
		return wrong(path, "names no host")
	}
	return nil
}

func checkAddress(path, address string) error {
	_, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return wrong(path, "%q is no address: write host:port or :port, with a port up to 65535", address)
	}
	return nil
}

// hubFile is the configuration of a hub.
type hubFile struct {
	StorageFile `yaml:",inline"`

	Listen    string            `yaml:"listen"`
	Public    []string          `yaml:"public"`
	HTTP      string            `yaml:"http"`
	Name      string            `yaml:"name"`  // for the hubs above; empty: the machine's
	Hubs      []homeFile        `yaml:"hubs"`  // above this one
	Allow     allowFile         `yaml:"allow"` // for those
	TLS       *tlsFile          `yaml:"tls"`
	Authority *hubAuthorityFile `yaml:"authority"`
	Policies  []policyFile      `yaml:"policies"`
}

type tlsFile struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// policyFile says what is to be held at the centre of the streams that match a pattern.
type policyFile struct {
	Streams string `yaml:"streams"`
	Keep    string `yaml:"keep"`
}

const (
	defaultLink = ":7563"
	defaultHTTP = "127.0.0.1:8480"
)

func (c *hubFile) check() error {
	if c.Dir == "" {
		return wrong("$.dir", "say where to keep the centre's data, for example /var/lib/branchline/hub")
	}
	if err := c.StorageFile.check(); err != nil {
		return err
	}
	if c.Listen == "" {
		c.Listen = defaultLink
	}
	if c.HTTP == "" {
		c.HTTP = defaultHTTP
	}
	if err := checkAddress("$.listen", c.Listen); err != nil {
		return err
	}
	if err := checkAddress("$.http", c.HTTP); err != nil {
		return err
	}
	for i, a := range c.Public {
		if err := checkAddress(fmt.Sprintf("$.public[%d]", i), a); err != nil {
			return err
		}
	}
	if c.TLS != nil && (c.TLS.Certificate == "" || c.TLS.Key == "") {
		return wrong("$.tls", "needs both certificate and key, paths of PEM files")
	}
	if len(c.Name) > branchline.MaxName {
		return wrong("$.name", "longer than %d bytes", branchline.MaxName)
	}
	if err := checkHomes("$.hubs", c.Hubs); err != nil {
		return err
	}
	if err := c.Authority.check("$.authority"); err != nil {
		return err
	}
	for i, p := range c.Policies {
		at := fmt.Sprintf("$.policies[%d]", i)
		if p.Streams == "" {
			return wrong(at+".streams", "say which streams, for example \"*\" or \"berlin.*\"")
		}
		if !(policy.Policy{Streams: "*", Kind: policy.Kind(p.Keep)}).Valid() {
			return wrong(at+".keep", "%q is none of never, always, backfill", p.Keep)
		}
		if !(policy.Policy{Streams: p.Streams, Kind: policy.Never}).Valid() {
			return wrong(at+".streams", "%q is no pattern: * stands for any text, [ must be closed", p.Streams)
		}
	}
	rules, err := c.Retention.rules("$.retention")
	c.storage.Retention = rules
	return err
}
