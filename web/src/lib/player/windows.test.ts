import { describe, expect, it } from 'vitest'
import { coalesce, enough, jump, plan, windowLength } from './windows'
import type { Range } from '../time'

// "0-10 20-30"
function ranges(text: string): Range[] {
  return [...text.matchAll(/([\d.]+)-([\d.]+)/g)].map(([, a, b]) => ({ start: Number(a), end: Number(b) }))
}

const show = (list: Range[]) => list.map((r) => `${r.start}-${r.end}`).join(' ')

describe('plan', () => {
  const at = (next: number, playable: string, more: { buffered?: number; rate?: number; now?: number } = {}) => {
    const step = plan({ next, playable: ranges(playable), buffered: 0, rate: 1, now: 1000, ...more })
    return step.do === 'fetch' ? `${step.from}-${step.to}` : step.do
  }

  it.each([
    ['a whole window', 100, '0-500', {}, `100-${100 + windowLength}`],
    ['up to the end of a range', 95, '0-100 200-300', {}, '95-100'],
    ['over a gap', 100, '0-100 200-300', {}, '200-220'],
    ['from inside a gap', 150, '0-100 200-300', {}, '200-220'],
    ['up to what is recorded by now', 996, '0-1000', {}, '996-999.25'],
    ['more at a higher speed', 100, '0-500', { rate: 4 }, '100-180'],
    ['no less than normal at half speed', 100, '0-500', { rate: 0.5 }, '100-120'],
    ['wait at the end', 500, '0-500', {}, 'wait'],
    ['wait at the present', 999.1, '0-1000', {}, 'wait'],
    ['no crumbs while enough is in hand', 998, '0-1000', { buffered: 3 }, 'wait'],
    ['crumbs rather than a standstill', 998, '0-1000', { buffered: 0.4 }, '998-999.25'],
    ['full', 100, '0-500', { buffered: 11 }, 'full'],
    ['not full at a higher speed', 100, '0-500', { buffered: 11, rate: 2 }, '100-140'],
  ])('%s', (_, next, playable, more, want) => expect(at(next, playable, more)).toBe(want))

  it('walks through all that is playable once', () => {
    const playable = ranges('0-50 50.2-61 100-130')
    let next = 3
    let sum = 0
    for (let i = 0; i < 100; i++) {
      const step = plan({ next, playable, buffered: 0, rate: 1, now: 1000 })
      if (step.do !== 'fetch') break
      expect(step.from).toBeGreaterThanOrEqual(next)
      sum += step.to - step.from
      next = step.to
    }
    expect(sum).toBeCloseTo(47 + 10.8 + 30, 6)
  })
})

it('holds more in hand at a higher speed', () => expect(enough(8)).toBe(80))

describe('coalesce', () => {
  it.each([
    ['20-30 0-10', '0-10 20-30'],
    ['0-10 10.3-20', '0-20'],
    ['0-10 11-20', '0-10 11-20'],
    ['0-30 5-10', '0-30'],
  ])('%s', (given, want) => expect(show(coalesce(ranges(given)))).toBe(want))
})

describe('jump', () => {
  it.each([
    ['inside', 5, '0-10 20-30', undefined],
    ['at the end of a range', 9.95, '0-10 20-30', 20],
    ['in the gap', 15, '0-10 20-30', 20],
    ['before everything', 0, '20-30', 20],
    ['at the end of all', 29.99, '0-10 20-30', undefined],
    ['nothing buffered', 5, '', undefined],
    ['just before the end', 9.8, '0-10 20-30', undefined],
  ] as const)('%s', (_, at, buffered, want) => expect(jump(at, ranges(buffered))).toBe(want))

  it('leaves the last frames when the decoder does not give them', () => {
    expect(jump(9.8, ranges('0-10 20-30'), true)).toBe(20)
    expect(jump(5, ranges('0-10 20-30'), true)).toBeUndefined()
    expect(jump(9.8, ranges('0-10'), true)).toBeUndefined()
  })
})
