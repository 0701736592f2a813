import { describe, expect, it } from 'vitest'
import { pace, remember, type Report } from './progress'

const steady = (n: number): Report[] => {
  let all: Report[] = []
  for (let i = 0; i <= n; i++) all = remember(all, { at: 100 + i, share: i / 20, bytes: i * 1000 })
  return all
}

describe('pace', () => {
  it('is unknown at first', () => expect(pace(steady(0), 100)).toEqual({ rate: 0 }))

  it('tells rate and time left', () => {
    const p = pace(steady(10), 110)
    expect(p.rate).toBeCloseTo(1000, 6)
    expect(p.left).toBeCloseTo(10, 6)
  })

  it('falls when reports stay out', () => expect(pace(steady(10), 125).rate).toBeLessThan(500))
})

describe('remember', () => {
  it('forgets what is old', () => expect(remember(steady(10), { at: 200, share: 0.6, bytes: 20000 })).toHaveLength(1))
  it('forgets a count that was started anew', () =>
    expect(remember(steady(10), { at: 111, share: 0, bytes: 0 }).map((r) => r.bytes)).toEqual([0, 0]))
})
