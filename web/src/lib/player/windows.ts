import type { Range, Seconds } from '../time'

// Which range of a recording to ask for next. Recorded picture is fetched in consecutive windows so
// that a player holds little, and leaving one costs at most one window of traffic.

export const windowLength: Seconds = 20
export const liveMargin: Seconds = 0.75 // what a fragment in the making may still lack

const comfortable: Seconds = 2 // with so much in hand there is no hurry
const worthwhile: Seconds = 2 // a window begins at a key frame, so a short one repeats more than it brings

export type Step =
  | { do: 'fetch'; from: Seconds; to: Seconds }
  | { do: 'wait' } // at the end of what is recorded so far
  | { do: 'full' } // enough is buffered

export interface PlanState {
  next: Seconds // end of what was asked for
  buffered: Seconds // picture ahead of the current time
  rate: number // playback rate
  playable: Range[] // known to be held or at the edge, ascending
  now: Seconds
}

/** How much picture to hold ahead: ten seconds of viewing at any speed. */
export function enough(rate: number): Seconds {
  return 10 * Math.max(rate, 1)
}

/** Decides the next window: from where the last one ended, jumping over what cannot be played. */
export function plan(s: PlanState): Step {
  if (s.buffered > enough(s.rate)) return { do: 'full' }
  const latest = s.now - liveMargin
  const range = s.playable.find((r) => r.end > s.next + 0.001)
  if (!range) return { do: 'wait' }
  const from = Math.max(s.next, range.start)
  const to = Math.min(from + windowLength * Math.max(s.rate, 1), range.end, latest)
  const least = s.buffered > comfortable ? worthwhile : 0.2
  return to - from < least ? { do: 'wait' } : { do: 'fetch', from, to }
}

/** Joins ranges that touch (within tolerance), ascending. */
export function coalesce(ranges: Range[], tolerance: Seconds = 0.5): Range[] {
  const out: Range[] = []
  for (const r of [...ranges].sort((a, b) => a.start - b.start)) {
    const last = out.at(-1)
    if (last && r.start <= last.end + tolerance) last.end = Math.max(last.end, r.end)
    else out.push({ ...r })
  }
  return out
}

const tail: Seconds = 0.1
const stalledTail: Seconds = 0.6 // a decoder may keep its last frames to itself until more come

/** Where to jump when playback stands at the end of what is buffered: the next buffered start. */
export function jump(at: Seconds, buffered: Range[], stalled = false): Seconds | undefined {
  const left = stalled ? stalledTail : tail
  const inside = buffered.some((b) => at >= b.start - 0.01 && at < b.end - left)
  if (inside) return undefined
  return buffered.find((b) => b.start > at + 0.01)?.start
}
