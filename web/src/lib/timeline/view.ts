import { formatClock, zoneOffset, type Range, type Seconds } from '../time'

// The arithmetic of a time line on the screen. A View is the range of time that a width in pixels
// shows; every function returns a new one.

export type View = Range

export const shortest: Seconds = 10 // below this a frame is wider than a finger
export const longest: Seconds = 7 * 86400 // what one timeline question covers at most

export function xAt(view: View, width: number, t: Seconds): number {
  return ((t - view.start) / (view.end - view.start)) * width
}

export function timeAt(view: View, width: number, x: number): Seconds {
  return view.start + (x / Math.max(width, 1)) * (view.end - view.start)
}

/** Scales the view around t, which stays where it is on the screen, within shortest and longest. */
export function zoomAt(view: View, t: Seconds, factor: number): View {
  const length = view.end - view.start
  const wanted = Math.min(Math.max(length * factor, shortest), longest)
  const share = (t - view.start) / length
  return { start: t - share * wanted, end: t + (1 - share) * wanted }
}

export function pan(view: View, by: Seconds): View {
  return { start: view.start + by, end: view.end + by }
}

/** A view of the given length that ends a little after now, so that the present has room. */
export function viewBefore(now: Seconds, length: Seconds): View {
  const end = now + length * 0.04
  return { start: end - length, end }
}

/** Moves the view as little as needed so that t has a margin on both sides. */
export function reveal(view: View, t: Seconds, margin = 0.06): View {
  const room = (view.end - view.start) * margin
  if (t < view.start + room) return pan(view, t - room - view.start)
  if (t > view.end - room) return pan(view, t + room - view.end)
  return view
}

/** Keeps the view from running into a future in which there is nothing. */
export function bound(view: View, now: Seconds): View {
  const latest = now + (view.end - view.start) * 0.5
  return view.end > latest ? pan(view, latest - view.end) : view
}

export interface Tick {
  t: Seconds
  label: string // empty for a minor one
  day: boolean // local midnight
}

const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400] as const

/** Ticks at round times of the zone's wall clock, labelled so that no two labels touch. */
export function ticks(view: View, width: number, zone: string, labelWidth = 78): Tick[] {
  const perPixel = (view.end - view.start) / Math.max(width, 1)
  const major = steps.find((s) => s / perPixel >= labelWidth) ?? 86400
  const minor = [...steps].reverse().find((s) => s < major && major % s === 0 && s / perPixel >= 12) ?? major
  const found: Tick[] = []
  let t = alignUp(view.start, minor, zone)
  while (t <= view.end && found.length < 2000) {
    const wall = Math.round(t + zoneOffset(t, zone))
    const labelled = wall % major === 0
    found.push({ t, day: wall % 86400 === 0, label: labelled ? label(t, major, zone) : '' })
    const next = alignUp(t + minor, minor, zone)
    t = next > t ? next : t + minor
  }
  return found
}

function label(t: Seconds, step: number, zone: string): string {
  const clock = formatClock(t, zone)
  return step % 60 === 0 ? clock.slice(0, 5) : clock
}

// alignUp returns the first instant from t on whose wall clock is a multiple of step.
function alignUp(t: Seconds, step: number, zone: string): Seconds {
  const offset = zoneOffset(t, zone)
  const aligned = Math.ceil((t + offset) / step - 1e-9) * step - offset
  const after = zoneOffset(aligned, zone)
  return after === offset ? aligned : aligned + offset - after
}
