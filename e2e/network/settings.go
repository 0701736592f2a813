package network

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// defaultQueue is how long packets wait for the rate at most, as in a small router.
const defaultQueue = 100 * time.Millisecond

// Settings are what one direction of a link does to packets. The zero value delivers all of them at once.
type Settings struct {
	Rate    float64       // bits per second of IP packets; 0: without limit
	Queue   time.Duration // most time that a packet waits for the rate; 0: defaultQueue
	Delay   time.Duration // one way
	Jitter  time.Duration // up to this much is added to the delay, and the order is kept
	Loss    float64       // share of packets at which a loss begins
	Burst   int           // packets lost in a row at each loss; 0: one
	Corrupt float64       // share of packets with one bit changed, in a way that no checksum of IP or UDP shows
	Reorder float64       // share of packets that come behind those sent within ReorderBy after them
	MTU     int           // larger packets are lost, and no ICMP tells; 0: all pass
	Cut     bool          // nothing passes
	NoUDP   bool          // no UDP passes
	NoTCP   bool          // no TCP passes
}

// ReorderBy is by how much a packet is late that is to come out of order.
const ReorderBy = 10 * time.Millisecond

// Set changes one setting, written as in rate=50mbit, delay=40ms, loss=1%, mtu=1280, cut=on.
func (s *Settings) Set(text string) error {
	key, value, _ := strings.Cut(text, "=")
	var err error
	switch key {
	case "rate":
		s.Rate, err = parseRate(value)
	case "queue":
		s.Queue, err = time.ParseDuration(value)
	case "delay":
		s.Delay, err = time.ParseDuration(value)
	case "jitter":
		s.Jitter, err = time.ParseDuration(value)
	case "loss":
		s.Loss, err = parseShare(value)
	case "burst":
		s.Burst, err = strconv.Atoi(value)
	case "corrupt":
		s.Corrupt, err = parseShare(value)
	case "reorder":
		s.Reorder, err = parseShare(value)
	case "mtu":
		s.MTU, err = strconv.Atoi(value)
	case "cut":
		s.Cut, err = parseSwitch(value)
	case "noudp":
		s.NoUDP, err = parseSwitch(value)
	case "notcp":
		s.NoTCP, err = parseSwitch(value)
	default:
		return fmt.Errorf("no setting is called %q: rate, queue, delay, jitter, loss, burst, corrupt, reorder, "+
			"mtu, cut, noudp, notcp", key)
	}
	if err != nil {
		return fmt.Errorf("setting %s: %w", key, err)
	}
	return nil
}

// Parse reads settings divided by white space.
func Parse(text string) (Settings, error) {
	var s Settings
	for _, word := range strings.Fields(text) {
		if err := s.Set(word); err != nil {
			return Settings{}, err
		}
	}
	return s, nil
}

func parseRate(text string) (float64, error) {
	unit := 1.0
	for _, u := range []struct {
		name string
		bits float64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}} {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = rest, u.bits
			break
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err == nil && f < 0 {
		err = fmt.Errorf("%q is negative", text)
	}
	return f * unit, err
}

func parseShare(text string) (float64, error) {
	rest, percent := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(rest, 64)
	if percent {
		f /= 100
	}
	if err == nil && (f < 0 || f > 1) {
		err = fmt.Errorf("%q is no share of the packets", text)
	}
	return f, err
}

func parseSwitch(text string) (bool, error) {
	switch text {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", text)
}
