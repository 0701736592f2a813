import { describe, expect, it } from 'vitest'
import { evictBefore, follow, Target } from './edge'

const target = 0.12
const from = (at: number, ...ranges: [number, number][]) =>
  follow({ at, target, ranges: ranges.map(([start, end]) => ({ start, end })) })

describe('follow', () => {
  it('waits for the first frame', () => expect(from(0)).toEqual({ rate: 1, lag: 0 }))

  it('jumps to the first frame', () => expect(from(0, [100, 100.04]).seek).toBe(100))

  it('jumps to the edge, not to the start, when a whole key-frame interval comes at once', () =>
    expect(from(0, [100, 104]).seek).toBeCloseTo(103.88, 6))

  it('plays on at its distance', () => expect(from(103.88, [100, 104])).toEqual({ rate: 1, lag: 104 - 103.88 }))

  it('hurries a little when behind, with a bound', () => {
    expect(from(103.6, [100, 104]).rate).toBeGreaterThan(1.1)
    expect(from(103.4, [100, 104]).rate).toBeLessThanOrEqual(1.5)
    expect(from(103.4, [100, 104]).seek).toBeUndefined()
  })

  it('jumps sooner while the picture has only just begun', () => {
    const state = { at: 103.4, target, ranges: [{ start: 100, end: 104 }] }
    expect(follow({ ...state, fresh: true }).seek).toBeCloseTo(103.88, 6)
    expect(follow({ ...state, at: 103.7, fresh: true }).seek).toBeUndefined()
  })

  it('jumps when far behind', () => expect(from(100, [90, 104]).seek).toBeCloseTo(103.88, 6))

  it('slows when it is about to run dry', () => expect(from(103.98, [100, 104]).rate).toBeLessThan(1))

  it('crosses a hole that lost frames left', () =>
    expect(from(103, [100, 103], [103.5, 103.9]).seek).toBeCloseTo(103.78, 6))

  it('comes back when the clock of the stream stepped back', () =>
    expect(from(110, [100, 104]).seek).toBeCloseTo(103.88, 6))
})

describe('target', () => {
  it('grows with stalls up to a bound and shrinks when steady', () => {
    const t = new Target()
    const before = t.seconds
    t.stalled()
    expect(t.seconds).toBeGreaterThan(before)
    for (let i = 0; i < 100; i++) t.stalled()
    expect(t.seconds).toBeLessThanOrEqual(0.35)
    for (let i = 0; i < 1000; i++) t.steady()
    expect(t.seconds).toBeCloseTo(0.08, 6)
  })
})

describe('evictBefore', () => {
  it('leaves a young buffer alone', () => expect(evictBefore(110, [{ start: 100, end: 111 }])).toBeUndefined())
  it('keeps the latest picture', () => expect(evictBefore(130, [{ start: 100, end: 131 }])).toBe(115))
  it('has nothing to do without a buffer', () => expect(evictBefore(130, [])).toBeUndefined())
})
