import { describe, expect, it } from 'vitest'
import { parseTime } from '../time'
import { bound, longest, pan, reveal, shortest, ticks, timeAt, viewBefore, xAt, zoomAt } from './view'

const view = { start: 1000, end: 1600 }

describe('view', () => {
  it('maps time to pixels and back', () => {
    expect(xAt(view, 300, 1300)).toBe(150)
    expect(timeAt(view, 300, 150)).toBe(1300)
    expect(timeAt(view, 300, xAt(view, 300, 1234.5))).toBeCloseTo(1234.5, 6)
  })

  it.each([0.5, 2, 0.9])('zooms by %d around a time that stays in place', (factor) => {
    const zoomed = zoomAt(view, 1150, factor)
    expect(xAt(zoomed, 300, 1150)).toBeCloseTo(75, 6)
    expect(zoomed.end - zoomed.start).toBeCloseTo(600 * factor, 6)
  })

  it('zooms no further than its bounds', () => {
    const near = zoomAt(view, 1300, 1e-9)
    expect(near.end - near.start).toBeCloseTo(shortest, 6)
    const far = zoomAt(view, 1300, 1e9)
    expect(far.end - far.start).toBeCloseTo(longest, 6)
  })

  it('ends a little after now', () => {
    const v = viewBefore(5000, 600)
    expect(v.end).toBeGreaterThan(5000)
    expect(v.end - v.start).toBeCloseTo(600, 6)
  })

  it('is moved only when the time to show is near an edge or outside', () => {
    expect(reveal(view, 1300)).toBe(view)
    expect(reveal(view, 1700).end).toBeCloseTo(1736, 6)
    expect(reveal(view, 900).start).toBeCloseTo(864, 6)
  })

  it('does not run into the future', () => {
    expect(bound(pan(view, 9000), 1600)).toEqual({ start: 1300, end: 1900 })
    expect(bound(view, 1600)).toBe(view)
  })
})

describe('ticks', () => {
  const labels = (from: string, to: string, width: number, zone: string) =>
    ticks({ start: parseTime(from), end: parseTime(to) }, width, zone)
      .filter((t) => t.label)
      .map((t) => t.label)

  it('stand at round times', () =>
    expect(labels('2026-11-23T12:00:30Z', '2026-11-23T12:10:30Z', 600, 'UTC')).toEqual([
      '12:02',
      '12:04',
      '12:06',
      '12:08',
      '12:10',
    ]))

  it('show seconds when close', () =>
    expect(labels('2026-11-23T12:00:01Z', '2026-11-23T12:00:21Z', 400, 'UTC')).toEqual([
      '12:00:05',
      '12:00:10',
      '12:00:15',
      '12:00:20',
    ]))

  it('follow a zone that is not whole hours from UTC', () =>
    expect(labels('2026-11-23T00:00:00Z', '2026-11-23T06:00:00Z', 600, 'Asia/Kolkata')).toEqual([
      '06:00',
      '07:00',
      '08:00',
      '09:00',
      '10:00',
      '11:00',
    ]))

  it('stay on round wall-clock times when the clock is put back', () =>
    expect(labels('2026-10-25T00:30:00Z', '2026-10-25T03:30:00Z', 300, 'Europe/Berlin')).toEqual([
      '02:00',
      '03:00',
      '04:00',
    ])) // the second 02:00 of that night

  it('mark midnight of the zone', () => {
    const view = { start: parseTime('2026-11-22T12:00:00Z'), end: parseTime('2026-11-23T12:00:00Z') }
    const days = ticks(view, 1200, 'Europe/Berlin').filter((t) => t.day)
    expect(days.map((t) => t.t)).toEqual([parseTime('2026-11-22T23:00:00Z')])
  })

  it('are bounded however wide the view', () =>
    expect(ticks({ start: 0, end: longest }, 4000, 'UTC').length).toBeLessThan(400))
})
