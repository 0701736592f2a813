import { describe, expect, it } from 'vitest'
import type { Lock } from './api'
import { cameraOf, isLocked, lockedRanges, locksOf, standingOf, untilWords } from './locks'

const base: Lock = {
  id: '1',
  user: 'erika',
  created: '2026-03-01T08:00:00Z',
  streams: ['berlin.yard.main', 'berlin.yard.sub'],
  from: '1970-01-01T00:00:10Z',
  to: '1970-01-01T00:00:20Z',
  reason: 'case 12',
  state: 'locked',
  at_hub: true,
  at_site: 'placed',
}

function lock(from: number, to: number, more: Partial<Lock> = {}): Lock {
  const text = (t: number) => new Date(t * 1000).toISOString()
  return { ...base, from: text(from), to: text(to), ...more }
}

describe('locks of a camera', () => {
  const other = lock(0, 5, { streams: ['berlin.yard-2.main'] })

  it('are those on its streams', () => expect(locksOf([base, other], 'berlin.yard')).toEqual([base]))
  it('name it', () => expect(cameraOf(base)).toBe('berlin.yard'))

  it('are joined to ranges', () => {
    const locks = [lock(30, 40), lock(10, 20), lock(20, 25), lock(12, 14), other]
    expect(lockedRanges(locks, 'berlin.yard')).toEqual([
      { start: 10, end: 25 },
      { start: 30, end: 40 },
    ])
  })

  it('count while they are in force', () => {
    const locks = [lock(10, 20, { state: 'ended' }), lock(30, 40, { state: 'unlocking' })]
    expect(lockedRanges(locks, 'berlin.yard')).toEqual([])
  })
})

describe('isLocked', () => {
  const ranges = [{ start: 10, end: 20 }]
  it.each([
    [9, false],
    [10, true],
    [19, true],
    [20, false],
  ])('%d: %s', (t, want) => expect(isLocked(ranges, t)).toBe(want))
})

describe('standing', () => {
  it.each<[Partial<Lock>, string, string]>([
    [{}, 'Locked', 'good'],
    [{ at_site: 'pending', cause: 'the site is not linked' }, 'At the centre', 'warn'],
    [{ at_site: 'refused', cause: 'denied' }, 'At the centre only', 'bad'],
    [{ state: 'unlocking', at_site: 'pending' }, 'Unlocking', 'warn'],
    [{ state: 'unlocking', at_site: 'refused', cause: 'denied' }, 'Unlocked here only', 'bad'],
    [{ state: 'ended', at_site: 'gone' }, 'Ended', 'quiet'],
  ])('%o is %s', (change, title, tone) => {
    const s = standingOf({ ...base, ...change })
    expect([s.title, s.tone]).toEqual([title, tone])
    if (change.cause) expect(s.detail).toContain(change.cause)
  })
})

describe('until', () => {
  it('tells the date', () => expect(untilWords(lock(0, 1, { until: '2026-04-01T08:00:00Z' }), 0)).toContain('1 Apr'))
  it('tells that there is none', () => expect(untilWords(base, 0)).toBe('until unlocked'))
})
