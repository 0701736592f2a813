import type { Seconds } from './time'

// How fast a retrieval runs and when it will be done, from its latest reports.

export interface Report {
  at: Seconds
  share: number
  bytes: number
}

export interface Pace {
  rate: number // bytes a second
  left?: Seconds // until done, if it moves
}

const remembered: Seconds = 20 // a longer memory answers too slowly when a link comes back
const most = 100

/** Adds a report and forgets those that are too old to matter. */
export function remember(reports: Report[], report: Report): Report[] {
  const recent = reports.filter((r) => report.at - r.at <= remembered && r.bytes <= report.bytes)
  return [...recent, report].slice(-most)
}

export function pace(reports: Report[], now: Seconds): Pace {
  const first = reports[0]
  const last = reports.at(-1)
  if (!first || !last || now - first.at < 0.5) return { rate: 0 }
  const seconds = Math.max(last.at, now - 1) - first.at // a second of silence is not a stop yet
  if (seconds <= 0) return { rate: 0 }
  const rate = (last.bytes - first.bytes) / seconds
  const speed = (last.share - first.share) / seconds
  return speed > 0 ? { rate, left: Math.max(0, (1 - last.share) / speed) } : { rate }
}
