import type { Lock } from './api'
import { formatMoment, parseTime, type Range, type Seconds } from './time'

// Evidence locks as the console shows them.

/** The camera of which a lock has streams. */
export function cameraOf(lock: Lock): string {
  return (lock.streams[0] ?? '').split('.').slice(0, -1).join('.')
}

/** The locks on a camera's streams, as they are listed. */
export function locksOf(locks: Lock[], camera: string): Lock[] {
  return locks.filter((l) => l.streams.some((s) => s.startsWith(`${camera}.`)))
}

export function rangeOf(lock: Lock): Range {
  return { start: parseTime(lock.from), end: parseTime(lock.to) }
}

/** The ranges in force on a camera, by start and without overlap. */
export function lockedRanges(locks: Lock[], camera: string): Range[] {
  const all = locksOf(locks, camera)
    .filter((l) => l.state === 'locked')
    .map(rangeOf)
    .sort((a, b) => a.start - b.start)
  const joined: Range[] = []
  for (const r of all) {
    const last = joined.at(-1)
    if (last && r.start <= last.end) last.end = Math.max(last.end, r.end)
    else joined.push({ ...r })
  }
  return joined
}

export function isLocked(ranges: Range[], t: Seconds): boolean {
  return ranges.some((r) => r.start <= t && t < r.end)
}

export interface Standing {
  title: string
  detail: string
  tone: 'good' | 'warn' | 'bad' | 'quiet'
}

/** How a lock stands, in words. */
export function standingOf(lock: Lock): Standing {
  const cause = lock.cause ?? ''
  if (lock.state === 'ended') return { title: 'Ended', detail: 'Retention decides again', tone: 'quiet' }
  if (lock.state === 'unlocking') {
    const refused = lock.at_site === 'refused'
    return {
      title: refused ? 'Unlocked here only' : 'Unlocking',
      detail: refused ? `The branch keeps it: ${cause}` : `Not told the branch yet${cause ? `: ${cause}` : ''}`,
      tone: refused ? 'bad' : 'warn',
    }
  }
  switch (lock.at_site) {
    case 'placed':
      return { title: 'Locked', detail: 'At the centre and at the branch', tone: 'good' }
    case 'refused':
      return { title: 'At the centre only', detail: `The branch refuses: ${cause}`, tone: 'bad' }
    default:
      return { title: 'At the centre', detail: `Not at the branch yet${cause ? `: ${cause}` : ''}`, tone: 'warn' }
  }
}

/** Until when, in words. */
export function untilWords(lock: Lock, reference: Seconds): string {
  return lock.until ? `until ${formatMoment(parseTime(lock.until), reference)}` : 'until unlocked'
}

/** How long a lock may be asked to last; no days stand for until it is taken off. */
export const terms: readonly { days?: number; name: string }[] = [
  { days: 30, name: '30 days' },
  { days: 90, name: '90 days' },
  { days: 365, name: '1 year' },
  { name: 'Until somebody unlocks it' },
]
