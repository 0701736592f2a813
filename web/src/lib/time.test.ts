import { describe, expect, it } from 'vitest'
import {
  formatAgo,
  formatBytes,
  formatClock,
  formatDay,
  formatDuration,
  formatISO,
  formatMoment,
  formatRange,
} from './time'
import { formatRate, parseTime, zoneLabel, zoneOffset } from './time'

const winter = parseTime('2026-11-23T12:00:00Z')
const summer = parseTime('2026-07-01T22:30:00Z')

describe('zones', () => {
  it.each([
    [winter, 'Europe/Berlin', 3600],
    [summer, 'Europe/Berlin', 7200],
    [winter, 'UTC', 0],
    [winter, 'Asia/Kolkata', 19800],
    [summer, 'America/New_York', -14400],
    [winter, 'Asia/Kathmandu', 20700],
  ])('%s in %s', (t, zone, offset) => expect(zoneOffset(t, zone)).toBe(offset))

  it('are named with their distance from UTC', () => {
    expect(zoneLabel(winter, 'UTC')).toBe('UTC')
    expect(zoneLabel(summer, 'Asia/Kolkata')).toContain('UTC+5:30')
  })
})

describe('moments', () => {
  it.each([
    ['UTC', 0, '22:30:00'],
    ['Europe/Berlin', 0, '00:30:00'],
    ['Asia/Kolkata', 1, '04:00:00.0'],
  ])('clock in %s with %i digits', (zone, digits, want) => expect(formatClock(summer, zone, digits)).toBe(want))

  it('never rounds into the next second', () => {
    expect(formatClock(winter + 0.999, 'UTC')).toBe('12:00:00')
    expect(formatClock(winter + 0.999, 'UTC', 1)).toBe('12:00:00.9')
  })

  it('changes the day with the zone', () => {
    expect(formatDay(summer, 'UTC')).toBe('Wed 1 Jul 2026')
    expect(formatDay(summer, 'Europe/Berlin')).toBe('Thu 2 Jul 2026')
  })

  it('shows the day only when it is another one', () => {
    expect(formatMoment(winter, winter + 60, 'UTC')).toBe('12:00:00')
    expect(formatMoment(winter - 86400, winter, 'UTC')).toBe('22 Nov 12:00:00')
    expect(formatRange({ start: winter - 86400, end: winter - 86300 }, winter, 'UTC')).toBe(
      '22 Nov 12:00:00 – 12:01:40',
    )
    expect(formatRange({ start: winter - 43201, end: winter }, winter, 'UTC')).toBe('22 Nov 23:59:59 – 12:00:00')
  })

  it('goes to the API and back', () => expect(parseTime(formatISO(winter + 0.125))).toBe(winter + 0.125))
})

describe('quantities', () => {
  it.each([
    [0.42, '0.4 s'],
    [3, '3 s'],
    [9.97, '10 s'],
    [59.6, '1 min'],
    [250, '4 min 10 s'],
    [3600, '1 h'],
    [11100, '3 h 05 min'],
    [100 * 3600, '4 d 04 h'],
    [Infinity, 'unknown'],
  ])('%d seconds', (n, want) => expect(formatDuration(n)).toBe(want))

  it.each([
    [0, 'just now'],
    [12.7, '12 s ago'],
    [250, '4 min ago'],
    [90000, '1 d ago'],
  ])('%d seconds ago', (n, want) => expect(formatAgo(winter - n, winter)).toBe(want))

  it('bytes and rates are decimal', () => {
    expect(formatBytes(812)).toBe('812 B')
    expect(formatBytes(4_210_000)).toBe('4.2 MB')
    expect(formatBytes(999_700)).toBe('1.0 MB')
    expect(formatRate(80_000)).toBe('640 kbit/s')
  })
})
