import { api, ask, type ApiSpan, type Timeline } from '../api'
import { formatISO, now, parseTime, type Range, type Seconds } from '../time'
import { coalesce } from './windows'

// What of a stream can be played, asked for a stretch at a time and kept until it is out of date.

const stretch: Seconds = 6 * 3600
const stretches = 120 // a month of nothing recorded; then the search ends
const fresh: Seconds = 1.5 // the present changes all the time

export class Footage {
  private known: Range = { start: 0, end: 0 }
  private asked: Seconds = 0
  private ranges: Range[] = []

  constructor(
    private readonly camera: string,
    private readonly stream: string,
  ) {}

  /** To be called when the time line changed. */
  forget(): void {
    this.known = { start: 0, end: 0 }
  }

  /** Playable ranges, of which the first ends after t; empty if nothing is recorded after t. */
  async after(t: Seconds): Promise<Range[]> {
    let from = t
    for (let i = 0; i < stretches && from < now(); i++) {
      if (!this.covers(from)) await this.load(from)
      const found = this.ranges.filter((r) => r.end > t + 0.001)
      if (found.length > 0) return found
      from = this.known.end
    }
    return []
  }

  private covers(t: Seconds): boolean {
    if (t < this.known.start || t >= this.known.end) return false
    const nearPresent = this.known.end > this.asked - 60
    return !nearPresent || now() - this.asked < fresh || t < this.known.end - 60
  }

  private async load(from: Seconds): Promise<void> {
    const path = { camera: this.camera }
    const query = { from: formatISO(from), to: formatISO(from + stretch) }
    const answer = await ask(api.GET('/api/v1/cameras/{camera}/timeline', { params: { path, query } }))
    const spans = spansOf(answer, this.stream)
    this.asked = now()
    this.known = { start: from, end: Math.min(from + stretch, this.asked) }
    this.ranges = coalesce(spans.filter(isPlayable).map(rangeOf))
  }
}

/** The spans of one stream, or the camera's if the stream has none of its own. */
export function spansOf(timeline: Timeline, stream: string): ApiSpan[] {
  return timeline.streams.find((s) => s.stream === stream)?.spans ?? timeline.spans
}

export function rangeOf(span: ApiSpan): Range {
  return { start: parseTime(span.start), end: parseTime(span.end) }
}

/** Recorded somewhere, so that the hub can play it while the site's link is up. */
export function isPlayable(span: ApiSpan): boolean {
  return span.state !== 'gap' && span.state !== 'unknown'
}
