package budget

import "time"

// lookNow asks every link what it sent and sets the rates anew. Several may do so at once.
func (b *Budget) lookNow(now time.Time) {
	b.look.Store(now.Add(lookEvery).UnixNano())
	b.mu.Lock()
	taps := make([]*tap, 0, len(b.links))
	for t := range b.links {
		taps = append(taps, t)
	}
	b.mu.Unlock()
	samples := make([]Sample, len(taps))
	for i, t := range taps {
		samples[i] = t.sample()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var rtt time.Duration // of the link that sends most, whose line it is
	var most uint64
	for i, t := range taps {
		s := samples[i]
		if s.Sent < t.last.Sent { // another look was later
			continue
		}
		bytes := s.Sent - t.last.Sent
		if s.Packets > t.last.Packets { // the system counts those of TCP in 32 bits
			bytes += packetCost * (s.Packets - t.last.Packets)
		}
		if b.count.sent(now, bytes); s.RTT > 0 && bytes >= most {
			rtt, most = s.RTT, bytes
		}
		t.last = s
	}
	b.delay.observe(now, rtt, b.count.total, b.starved)
	b.count.measure(now, b.starved && b.path.rate > 0)
	b.count.doubt(now, b.shared && b.limit.Percent > 0 && b.cfg.Capacity == 0)
	b.starved, b.shared = false, false
	b.settle(now)
	b.setRates(now)
	b.dispatch(now)
}

// settle takes from the buckets what was sent beyond what had passed here: headers, what was sent again, and
// control. What passed and is not sent yet is not given back.
func (b *Budget) settle(now time.Time) {
	var passed uint64
	for c := range b.passed {
		passed += uint64(b.passed[c].Load())
	}
	if extra := b.count.beyond(now, passed); extra > 0 {
		b.path.take(extra)
		b.allow.take(extra)
	}
}

// setRates takes over what delay, schedule and quota say now. The caller holds mu.
func (b *Budget) setRates(now time.Time) {
	if now.Sub(b.lookedAt) >= idleLook || b.lookedAt.IsZero() || !b.until.IsZero() && !now.Before(b.until) {
		b.limit, b.until = b.cfg.Schedule.At(now)
		b.lookedAt = now
	}
	b.path.fill(now)
	b.allow.fill(now)
	b.path.rate = b.delay.now(now)
	rate := b.rate()
	if !b.count.anew.IsZero() && b.limit.Percent > 0 && !b.count.spent() {
		rate = Unlimited
	}
	b.allow.rate = max(rate.bytes(), 0)
	b.free.Store(rate == Unlimited && b.path.rate == 0 && b.delay.known && !b.count.spent())
}

// rate returns what may be sent now, of whatever may be sent at all. The caller holds mu.
func (b *Budget) rate() Rate {
	rate := b.limit.in(b.capacity())
	if then := b.cfg.Quota.Then.Rate; b.count.spent() && then != Unlimited {
		if rate == Unlimited || then == Nothing || then < rate && rate != Nothing {
			rate = then
		}
	}
	return rate
}

// capacity returns what the uplink can do, zero while nobody knows.
func (b *Budget) capacity() Rate {
	if b.cfg.Capacity > 0 {
		return b.cfg.Capacity
	}
	return b.count.capacity()
}

// barred returns why nothing of the class may be sent at all. The caller holds mu.
func (b *Budget) barred(class Class, now time.Time) error {
	spent := b.count.spent()
	switch {
	case b.rate() == Nothing:
	case spent && b.cfg.Quota.Then == (Limit{}) && class > Request:
	default:
		return nil
	}
	r := &Refusal{Budget: Nothing, Until: b.until, Zone: b.cfg.Schedule.Zone().String(), Spent: spent}
	if spent {
		_, r.Until = b.cfg.Quota.Month(now, b.cfg.Schedule.Zone())
	}
	return r
}
