import { describe, expect, it } from 'vitest'
import { isQuiet, patch, spanAt, totals, wordsFor, type Span } from './spans'

// "held 0-10 gap 10-12" in a line
function spans(text: string): Span[] {
  const found = [...text.matchAll(/(\w+) (\d+)-(\d+)/g)]
  return found.map(([, state, a, b]) => ({ state: state as Span['state'], start: Number(a), end: Number(b) }))
}

const show = (list: Span[]) => list.map((s) => `${s.state} ${s.start}-${s.end}`).join(' ')

describe('spanAt', () => {
  const list = spans('held 0-10 gap 10-12 edge 20-30')
  it.each([
    [0, 'held'],
    [9.99, 'held'],
    [10, 'gap'],
    [12, undefined],
    [20, 'edge'],
    [30, undefined],
    [-1, undefined],
  ])('%d', (t, want) => expect(spanAt(list, t)?.state).toBe(want))
})

describe('patch', () => {
  it.each([
    ['the end', 'held 0-10 edge 10-20', [10, 30], 'held 10-25', 'held 0-25'],
    ['the middle', 'edge 0-30', [10, 20], 'coming 10-20', 'edge 0-10 coming 10-20 edge 20-30'],
    ['what did not change', 'gap 0-5 edge 5-30', [10, 20], 'edge 10-20', 'gap 0-5 edge 5-30'],
    ['nothing yet', '', [0, 10], 'held 0-10', 'held 0-10'],
    ['everything', 'held 0-10', [0, 10], '', ''],
  ] as const)('%s', (_, old, [start, end], fresh, want) =>
    expect(show(patch(spans(old), { start, end }, spans(fresh)))).toBe(want),
  )
})

it('totals what a range covers', () => {
  const sums = totals(spans('held 0-10 gap 10-12 edge 12-30'), { start: 5, end: 20 })
  expect([...sums]).toEqual([
    ['held', 5],
    ['gap', 2],
    ['edge', 8],
  ])
})

it('tells a state with its cause, reason and share', () => {
  expect(wordsFor({ start: 0, end: 1, state: 'gap', note: 'camera unreachable' })).toBe(
    'No recording: camera unreachable',
  )
  expect(wordsFor({ start: 0, end: 1, state: 'coming', share: 0.499, note: 'backfill' })).toBe(
    'Coming, 49 % done (backfill)',
  )
})

it('a gap that was meant is quiet, every other is not', () => {
  expect(isQuiet({ start: 0, end: 1, state: 'gap', note: 'not scheduled' })).toBe(true)
  expect(isQuiet({ start: 0, end: 1, state: 'gap', note: 'link down' })).toBe(false)
  expect(isQuiet({ start: 0, end: 1, state: 'held' })).toBe(false)
})
