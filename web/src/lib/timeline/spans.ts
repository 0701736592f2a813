import type { ApiSpan, SpanState } from '../api'
import { parseTime, type Range, type Seconds } from '../time'

// The spans of one camera as the time line draws them.

export interface Span extends Range {
  state: SpanState
  share?: number
  note?: string // the cause of a gap, the reason of a want
}

export function toSpan(s: ApiSpan): Span {
  return {
    start: parseTime(s.start),
    end: parseTime(s.end),
    state: s.state,
    share: s.share,
    note: s.cause ?? s.reason,
  }
}

/** A gap that nobody needs to look into: recording was not meant, as before the camera was added. */
export function isQuiet(span: Span): boolean {
  return span.state === 'gap' && span.note === 'not scheduled'
}

/** The span at t; spans are ascending and do not overlap. */
export function spanAt(spans: Span[], t: Seconds): Span | undefined {
  let low = 0
  let high = spans.length
  while (low < high) {
    const mid = (low + high) >> 1
    if (spans[mid]!.end <= t) low = mid + 1
    else high = mid
  }
  const found = spans[low]
  return found && found.start <= t ? found : undefined
}

/** What the span is, in words: "coming, 40 % done (backfill after link down)". */
export function wordsFor(span: Span): string {
  const note = span.note ? ` (${span.note})` : ''
  switch (span.state) {
    case 'held':
      return 'Held at the centre'
    case 'edge':
      return 'At the branch only'
    case 'coming':
      return `Coming, ${Math.floor((span.share ?? 0) * 100)} % done${note}`
    case 'wanted':
      return `Wanted, queued${note}`
    case 'gap':
      return `No recording: ${span.note ?? 'cause not known'}`
    default:
      return 'Unknown: nothing was heard of this time'
  }
}

/** Seconds of each state inside the range. */
export function totals(spans: Span[], range: Range): Map<SpanState, Seconds> {
  const sums = new Map<SpanState, Seconds>()
  for (const s of spans) {
    const length = Math.min(s.end, range.end) - Math.max(s.start, range.start)
    if (length > 0) sums.set(s.state, (sums.get(s.state) ?? 0) + length)
  }
  return sums
}

/** Replaces what lies in range by the spans of a fresh answer; spans cut at its ends grow together again. */
export function patch(old: Span[], range: Range, fresh: Span[]): Span[] {
  const cut = (s: Span, start: Seconds, end: Seconds): Span => ({ ...s, start, end })
  const before = old.filter((s) => s.start < range.start).map((s) => cut(s, s.start, Math.min(s.end, range.start)))
  const after = old.filter((s) => s.end > range.end).map((s) => cut(s, Math.max(s.start, range.end), s.end))
  const out: Span[] = []
  for (const s of [...before, ...fresh, ...after]) {
    const last = out.at(-1)
    const same = last && Math.abs(last.end - s.start) < 0.002 && last.state === s.state && last.note === s.note
    if (same && s.state !== 'coming') last.end = s.end
    else out.push({ ...s })
  }
  return out
}
