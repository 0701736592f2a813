package network

import (
	"container/heap"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// maxQueued bounds the packets under way in one direction: a second of a gigabit in packets of 1500 bytes.
const maxQueued = 90_000

// Stats count what happened to the packets of one direction, since it began.
type Stats struct {
	Packets, Bytes int64 // delivered
	Data           int64 // delivered packets that carry much of a connection that is made already
	Lost           int64 // at random
	Queue          int64 // lost for a full queue
	Cut            int64 // lost for a cut or because their protocol is blocked
	Large          int64 // lost for their size
	Corrupted      int64 // delivered with a bit changed
	Translated     int64 // lost as nobody behind the NAT has their address
}

// packet is on its way.
type packet struct {
	data []byte
	due  time.Time
	n    uint64 // the order among those due together
}

// direction carries packets from one TUN device to another.
type direction struct {
	from, to  *os.File
	translate func(ip []byte) bool // rewrites a packet, false: it is lost; nil leaves all as they are
	wake      chan struct{}        // a packet is due earlier than all before, or the direction ends

	mu       sync.Mutex
	settings Settings
	random   *rand.Rand
	stats    Stats
	free     time.Time // when the line will have sent all that it took
	last     time.Time // when the last packet that is in order is due
	losing   int       // packets still to lose in a row
	n        uint64
	queue    packets
	ended    bool
}

func newDirection(from, to *os.File, seed uint64) *direction {
	return &direction{from: from, to: to, wake: make(chan struct{}, 1), random: rand.New(rand.NewPCG(seed, 1))}
}

// read takes packets until the device is closed.
func (d *direction) read() {
	buf := make([]byte, 1<<16)
	for {
		n, err := d.from.Read(buf)
		if err != nil {
			d.end()
			return
		}
		if d.take(buf[:n], time.Now()) {
			select {
			case d.wake <- struct{}{}:
			default:
			}
		}
	}
}

func (d *direction) end() {
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// take puts a copy of a packet on its way, or loses it. It reports whether it is now the first of all.
func (d *direction) take(ip []byte, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lose(ip) {
		return false
	}
	due, ok := d.send(len(ip), now)
	if !ok || len(d.queue) >= maxQueued {
		d.stats.Queue++
		return false
	}
	data := append([]byte(nil), ip...)
	if d.chance(d.settings.Corrupt) {
		corrupt(data, d.random)
		d.stats.Corrupted++
	}
	d.n++
	heap.Push(&d.queue, packet{data, due, d.n})
	return d.queue[0].n == d.n
}

// lose reports whether a packet never sets out. The caller holds mu, as for all that follow.
func (d *direction) lose(ip []byte) bool {
	s := &d.settings
	protocol := protocolOf(ip)
	switch {
	case s.Cut, s.NoUDP && protocol == udp, s.NoTCP && protocol == tcp:
		d.stats.Cut++
	case s.MTU > 0 && len(ip) > s.MTU:
		d.stats.Large++
	case d.losing > 0:
		d.losing--
		d.stats.Lost++
	case d.chance(s.Loss):
		d.losing = max(s.Burst, 1) - 1
		d.stats.Lost++
	default:
		return false
	}
	return true
}

// send returns when a packet arrives, or that the queue is full.
func (d *direction) send(size int, now time.Time) (due time.Time, ok bool) {
	s := &d.settings
	if d.free.Before(now) {
		d.free = now
	}
	if s.Rate > 0 {
		most := s.Queue
		if most == 0 {
			most = defaultQueue
		}
		if d.free.Sub(now) > most {
			return due, false
		}
		d.free = d.free.Add(time.Duration(float64(size*8) / s.Rate * float64(time.Second)))
	}
	due = d.free.Add(s.Delay)
	if s.Jitter > 0 {
		due = due.Add(time.Duration(d.random.Int64N(int64(s.Jitter))))
	}
	if d.chance(s.Reorder) {
		return due.Add(ReorderBy), true
	}
	if due.Before(d.last) {
		due = d.last
	}
	d.last = due
	return due, true
}

func (d *direction) chance(share float64) bool { return share > 0 && d.random.Float64() < share }

// write delivers packets when they are due, until the direction has ended.
func (d *direction) write() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p, wait, ended := d.next(time.Now())
		if ended {
			return
		}
		if p != nil {
			d.deliver(p)
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-d.wake:
		}
	}
}

// next returns the packet that is due, or how long there is none.
func (d *direction) next(now time.Time) (ip []byte, wait time.Duration, ended bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.ended:
		return nil, 0, true
	case len(d.queue) == 0:
		return nil, time.Hour, false
	case d.queue[0].due.After(now):
		return nil, d.queue[0].due.Sub(now), false
	}
	return heap.Pop(&d.queue).(packet).data, 0, false
}

func (d *direction) deliver(ip []byte) {
	lost := d.translate != nil && !d.translate(ip)
	if !lost {
		_, err := d.to.Write(ip)
		lost = err != nil // the device is down or closed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if lost {
		d.stats.Translated++
		return
	}
	d.stats.Packets++
	if isData(ip) {
		d.stats.Data++
	}
	d.stats.Bytes += int64(len(ip))
}

func (d *direction) change(f func(*Settings)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.settings)
}

// counts returns the present figures.
func (d *direction) counts() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// packets are a heap, the next due first.
type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	if !p[i].due.Equal(p[j].due) {
		return p[i].due.Before(p[j].due)
	}
	return p[i].n < p[j].n
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	old := *p
	last := old[len(old)-1]
	old[len(old)-1] = packet{}
	*p = old[:len(old)-1]
	return last
}
