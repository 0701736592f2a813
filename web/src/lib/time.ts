// Times in the console are seconds since 1970 as numbers, as a video element counts them; only the
// API's texts are RFC 3339. Everything shown is in the viewer's zone unless a zone is given.

export type Seconds = number

export interface Range {
  start: Seconds
  end: Seconds
}

export function parseTime(text: string): Seconds {
  return Date.parse(text) / 1000
}

export function formatISO(t: Seconds): string {
  return new Date(Math.round(t * 1000)).toISOString()
}

export function now(): Seconds {
  return Date.now() / 1000
}

/** The viewer's zone as the browser knows it, such as "Europe/Berlin". */
export function viewerZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'
}

/** The zone's name and distance from UTC at t, such as "GMT+2" or "UTC". */
export function zoneLabel(t: Seconds, zone = viewerZone()): string {
  const name = part(t, { timeZoneName: 'short' }, 'timeZoneName', zone)
  const offset = part(t, { timeZoneName: 'shortOffset' }, 'timeZoneName', zone).replace('GMT', 'UTC')
  const plain = name.replace('GMT', 'UTC')
  return plain === offset || plain === 'UTC' ? plain : `${name} (${offset})`
}

/** Seconds that the zone's wall clock is ahead of UTC at t. */
export function zoneOffset(t: Seconds, zone = viewerZone()): number {
  const text = part(t, { timeZoneName: 'longOffset' }, 'timeZoneName', zone)
  const m = /([+-])(\d\d):(\d\d)/.exec(text)
  if (!m) return 0
  return (m[1] === '-' ? -1 : 1) * (Number(m[2]) * 3600 + Number(m[3]) * 60)
}

function part(t: Seconds, options: Intl.DateTimeFormatOptions, type: string, timeZone: string): string {
  const parts = new Intl.DateTimeFormat('en-GB', { ...options, timeZone }).formatToParts(t * 1000)
  return parts.find((p) => p.type === type)?.value ?? ''
}

/** "14:03:22", with digits behind the second if asked: never rounded up into the next second. */
export function formatClock(t: Seconds, zone = viewerZone(), digits = 0): string {
  const scale = 10 ** digits
  const cut = Math.floor(t * scale + 1e-6)
  const whole = Math.floor(cut / scale)
  const wall = new Date((whole + zoneOffset(whole, zone)) * 1000).toISOString().slice(11, 19)
  return digits === 0 ? wall : `${wall}.${String(cut - whole * scale).padStart(digits, '0')}`
}

/** "Sun 23 Nov 2025" */
export function formatDay(t: Seconds, zone = viewerZone()): string {
  const options: Intl.DateTimeFormatOptions = { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' }
  return new Intl.DateTimeFormat('en-GB', { ...options, timeZone: zone }).format(t * 1000).replace(',', '')
}

/** The clock alone on the day of reference, else with the day before it. */
export function formatMoment(t: Seconds, reference: Seconds, zone = viewerZone()): string {
  const clock = formatClock(t, zone)
  if (formatDay(t, zone) === formatDay(reference, zone)) return clock
  const options: Intl.DateTimeFormatOptions = { day: 'numeric', month: 'short', timeZone: zone }
  return `${new Intl.DateTimeFormat('en-GB', options).format(t * 1000)} ${clock}`
}

/** "14:03:22 – 14:05:00", with the day once unless it is reference's, twice if the range crosses midnight. */
export function formatRange(range: Range, reference: Seconds, zone = viewerZone()): string {
  const sameDay = formatDay(range.start, zone) === formatDay(range.end, zone)
  const end = sameDay ? formatClock(range.end, zone) : formatMoment(range.end, reference, zone)
  return `${formatMoment(range.start, reference, zone)} – ${end}`
}

/** "0.4 s", "12 s", "4 min 10 s", "3 h 05 min", "2 d 4 h": two units at most. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return 'unknown'
  if (seconds < 9.95) return `${seconds.toFixed(1).replace('.0', '')} s`
  const s = Math.round(seconds)
  if (s < 60) return `${s} s`
  if (s < 3600) return join(Math.floor(s / 60), 'min', s % 60, 's')
  const m = Math.round(s / 60)
  if (m < 1440) return join(Math.floor(m / 60), 'h', m % 60, 'min')
  const h = Math.round(m / 60)
  return join(Math.floor(h / 24), 'd', h % 24, 'h')
}

function join(big: number, bigUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${String(small).padStart(2, '0')} ${smallUnit}`
}

/** "just now", "12 s ago", "4 min ago" */
export function formatAgo(t: Seconds, at: Seconds): string {
  const d = at - t
  if (d < 2) return 'just now'
  if (d < 60) return `${Math.floor(d)} s ago`
  if (d < 3600) return `${Math.floor(d / 60)} min ago`
  if (d < 86400) return `${Math.floor(d / 3600)} h ago`
  return `${Math.floor(d / 86400)} d ago`
}

/** Decimal units: "812 B", "4.2 MB", "1.3 GB" */
export function formatBytes(n: number): string {
  return scaled(n, ['B', 'kB', 'MB', 'GB', 'TB'])
}

/** Bits a second from bytes a second: "640 kbit/s", "8.4 Mbit/s" */
export function formatRate(bytesPerSecond: number): string {
  return scaled(bytesPerSecond * 8, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'])
}

function scaled(n: number, units: string[]): string {
  let i = 0
  while (n >= 999.5 && i < units.length - 1) {
    n /= 1000
    i++
  }
  return `${i > 0 && n < 9.95 ? n.toFixed(1) : Math.round(n)} ${units[i]}`
}
