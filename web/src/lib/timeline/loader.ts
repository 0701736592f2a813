import { api, ask, type Timeline } from '../api'
import { formatISO, now, type Range, type Seconds } from '../time'
import { toSpan, patch, type Span } from './spans'
import type { View } from './view'

// Keeps the spans of one camera for what a time line shows and a little more on both sides, and asks
// again when the view leaves that or the hub tells of a change.

const longestQuestion: Seconds = 30 * 86400 // the hub answers 31 days at most
const settle = 120 // milliseconds that a view must rest before it is asked for
const again = 400 // milliseconds between two questions because of changes
const presentEvery = 2000 // milliseconds between questions while the present is in view

export class TimelineLoader {
  private loaded: Range = { start: 0, end: 0 }
  private spans: Span[] = []
  private view: View
  private timer = 0
  private readonly present: number
  private turn = 0

  constructor(
    private readonly camera: string,
    view: View,
    private readonly got: (spans: Span[]) => void,
    private readonly failed: (err: unknown) => void,
  ) {
    this.view = view
    this.present = window.setInterval(() => {
      if (this.view.end > now() && document.visibilityState === 'visible') void this.load(this.recent())
    }, presentEvery)
    void this.load(this.wanted())
  }

  close(): void {
    this.turn = -1
    clearTimeout(this.timer)
    clearInterval(this.present)
  }

  /** Tells what is shown now. */
  show(view: View): void {
    this.view = view
    const end = Math.min(view.end, now() - 5)
    if (view.start < this.loaded.start || end > this.loaded.end) this.soon(settle)
  }

  /** Tells that the time line changed inside range. */
  changed(range: Range): void {
    if (range.end > this.loaded.start && range.start < this.loaded.end + 60) this.soon(again)
  }

  private soon(ms: number): void {
    if (this.timer) return
    this.timer = window.setTimeout(() => {
      this.timer = 0
      void this.load(this.wanted())
    }, ms)
  }

  private wanted(): Range {
    const length = this.view.end - this.view.start
    const start = this.view.start - length * 0.5
    return { start, end: Math.min(this.view.end + length * 0.5, now() + 1, start + longestQuestion) }
  }

  // recent is the end of what is loaded: all that grows by itself.
  private recent(): Range {
    const start = Math.max(this.loaded.start, Math.min(this.loaded.end, now()) - 120)
    return this.loaded.end > this.view.start ? { start, end: now() + 1 } : this.wanted()
  }

  private async load(range: Range): Promise<void> {
    const turn = this.turn
    if (turn < 0 || range.end <= range.start) return
    try {
      const query = { from: formatISO(range.start), to: formatISO(range.end) }
      const params = { path: { camera: this.camera }, query }
      const answer: Timeline = await ask(api.GET('/api/v1/cameras/{camera}/timeline', { params }))
      if (this.turn < 0) return
      const fresh = answer.spans.map(toSpan)
      const adjoins = range.start <= this.loaded.end && range.end >= this.loaded.start
      const whole = !adjoins || (range.start <= this.loaded.start && range.end >= this.loaded.end)
      this.spans = whole ? fresh : patch(this.spans, range, fresh)
      this.loaded = whole
        ? range
        : {
            start: Math.min(range.start, this.loaded.start),
            end: Math.max(range.end, this.loaded.end),
          }
      this.got(this.spans)
    } catch (err) {
      if (this.turn >= 0) this.failed(err)
    }
  }
}
