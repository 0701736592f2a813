import { formatClock, formatDay, viewerZone, type Range, type Seconds } from '../time'
import { isQuiet, spanAt, type Span } from './spans'
import { lookOf, states, type Look } from './states'
import { ticks, xAt, type View } from './view'

// Drawing of a time line on a canvas. A Painter holds colours and patterns for one device pixel ratio;
// its paint draws one whole frame and keeps nothing of it.

export interface Scene {
  view: View
  spans: Span[]
  now: Seconds
  playhead?: Seconds
  selection?: Range
  locks: Range[] // evidence locks in force
  hover?: Seconds
}

export const axisHeight = 26
const laneGap = 4
const flagRoom = 34 // half a flag's width: a label that would stand half behind one is left out
const labelRoom = 52
const lockHeight = 5 // of the bar over what is locked

export class Painter {
  private readonly patterns = new Map<string, CanvasPattern>()
  private readonly colours = new Map<string, string>()
  private readonly zone = viewerZone()

  constructor(
    private readonly context: CanvasRenderingContext2D,
    style: CSSStyleDeclaration,
    private readonly ratio: number,
  ) {
    const names = ['--text', '--text-2', '--line', '--line-2', '--accent', '--panel', '--live', '--lane', '--font', '--evidence']
    for (const n of [...names, ...states.map((s) => lookOf(s).colour)]) {
      this.colours.set(n, style.getPropertyValue(n).trim())
    }
    for (const s of states) {
      const p = this.pattern(lookOf(s))
      if (p) this.patterns.set(s, p)
    }
  }

  paint(scene: Scene, width: number, height: number): void {
    const c = this.context
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0)
    c.clearRect(0, 0, width, height)
    const lane = { top: axisHeight + laneGap, height: height - axisHeight - laneGap - 2 }
    this.paintAxis(scene, width, height)
    c.fillStyle = this.colour('--lane')
    c.fillRect(0, lane.top, width, lane.height)
    this.paintSpans(scene, width, lane)
    this.paintLocks(scene, width, lane.top)
    if (scene.selection) this.paintSelection(scene, scene.selection, width, lane)
    this.paintNow(scene, width, height)
    if (scene.hover !== undefined) this.paintHover(scene, scene.hover, width, lane)
    if (scene.playhead !== undefined) this.paintPlayhead(scene, scene.playhead, width, height)
  }

  private paintAxis(scene: Scene, width: number, height: number): void {
    const c = this.context
    const view = scene.view
    const flags = [scene.now, scene.playhead ?? scene.now].map((t) => xAt(view, width, t))
    c.font = `500 11.5px ${this.colour('--font')}`
    c.textBaseline = 'middle'
    c.textAlign = 'left'
    for (const tick of ticks(view, width, this.zone)) {
      const x = Math.round(xAt(view, width, tick.t)) + 0.5
      c.strokeStyle = this.colour(tick.day ? '--text-2' : tick.label ? '--line-2' : '--line')
      c.beginPath()
      c.moveTo(x, tick.label ? 4 : axisHeight - 5)
      c.lineTo(x, tick.label ? height : axisHeight)
      c.stroke()
      if (!tick.label || flags.some((f) => x > f - flagRoom - labelRoom && x < f + flagRoom)) continue
      c.fillStyle = this.colour(tick.day ? '--text' : '--text-2')
      c.fillText(tick.day ? formatDay(tick.t, this.zone).slice(0, -5) : tick.label, x + 5, axisHeight / 2)
    }
  }

  private paintSpans(scene: Scene, width: number, lane: { top: number; height: number }): void {
    const first = scene.spans.findIndex((s) => s.end > scene.view.start)
    if (first < 0) return
    for (let i = first; i < scene.spans.length; i++) {
      const span = scene.spans[i]!
      if (span.start >= scene.view.end) return
      const from = Math.max(xAt(scene.view, width, span.start), -4)
      const to = Math.min(xAt(scene.view, width, span.end), width + 4)
      this.paintSpan(span, from, Math.max(to, from + 1.2), lane)
    }
  }

  // paintLocks draws a bar above what is locked, with a padlock at its start where there is room.
  private paintLocks(scene: Scene, width: number, top: number): void {
    const c = this.context
    for (const lock of scene.locks) {
      if (lock.end <= scene.view.start || lock.start >= scene.view.end) continue
      const from = Math.max(xAt(scene.view, width, lock.start), -4)
      const to = Math.max(Math.min(xAt(scene.view, width, lock.end), width + 4), from + 2)
      c.fillStyle = this.colour('--evidence')
      c.fillRect(from, top - laneGap, to - from, lockHeight)
      if (to - from > 24) this.padlock(Math.max(from, 0), top + lockHeight - laneGap)
    }
  }

  // padlock draws a small padlock on a tab that hangs from the bar, its top left corner at x and y.
  private padlock(x: number, y: number): void {
    const c = this.context
    c.fillStyle = this.colour('--evidence')
    c.beginPath()
    c.roundRect(x, y, 18, 17, [0, 0, 4, 0])
    c.fill()
    c.fillStyle = c.strokeStyle = this.colour('--panel')
    c.fillRect(x + 5, y + 6.5, 8, 6.5)
    c.lineWidth = 1.5
    c.beginPath()
    c.arc(x + 9, y + 6, 2.6, Math.PI, 0)
    c.stroke()
    c.lineWidth = 1
  }

  private paintSpan(span: Span, from: number, to: number, lane: { top: number; height: number }): void {
    const c = this.context
    const quiet = isQuiet(span)
    const look = lookOf(quiet ? 'unknown' : span.state)
    const top = lane.top + look.top * lane.height
    const height = lane.height * (1 - look.top)
    c.fillStyle = (quiet ? undefined : this.patterns.get(span.state)) ?? this.colour(look.colour)
    c.fillRect(from, top, to - from, height)
    c.fillStyle = this.colour(look.colour)
    if (look.pattern !== 'solid' && look.pattern !== 'none') c.fillRect(from, top, to - from, 2)
    if (span.state === 'coming') {
      const done = (to - from) * (span.share ?? 0)
      c.fillRect(from, top, done, height)
      c.fillStyle = this.colour('--panel')
      if (done > 2) c.fillRect(from + done - 1, top, 2, height)
      this.caption(`${Math.floor((span.share ?? 0) * 100)} %`, from, to, top + height / 2)
    } else if (span.state === 'gap') {
      this.caption(span.note ?? '', from, to, lane.top + 0.36 * lane.height, quiet ? '--text-2' : look.colour)
    }
    if (span.state !== 'held') return
    c.fillStyle = this.colour('--lane') // a hairline between neighbours
    c.fillRect(to - 0.5, top, 0.5, height)
  }

  private caption(text: string, from: number, to: number, y: number, colour?: string): void {
    const c = this.context
    c.font = `600 11px ${this.colour('--font')}`
    const width = c.measureText(text).width
    const left = Math.max(from, 0)
    if (to - left < width + 14) return
    c.textAlign = 'center'
    const x = (left + Math.min(to, c.canvas.width / this.ratio)) / 2
    if (!colour) {
      c.fillStyle = this.colour('--panel')
      c.beginPath()
      c.roundRect(x - width / 2 - 5, y - 9, width + 10, 18, 4)
      c.fill()
    }
    c.fillStyle = colour ? this.colour(colour) : this.colour('--text')
    c.fillText(text, x, y + 0.5)
  }

  private paintSelection(scene: Scene, range: Range, width: number, lane: { top: number; height: number }): void {
    const c = this.context
    const from = xAt(scene.view, width, range.start)
    const to = xAt(scene.view, width, range.end)
    c.fillStyle = this.colour('--text')
    c.globalAlpha = 0.16
    c.fillRect(from, lane.top, to - from, lane.height)
    c.globalAlpha = 1
    c.strokeStyle = this.colour('--text')
    c.lineWidth = 1.5
    c.strokeRect(from, lane.top + 0.75, to - from, lane.height - 1.5)
    c.lineWidth = 1
    for (const x of [from, to]) {
      c.fillStyle = this.colour('--text')
      c.beginPath()
      c.roundRect(x - 4, lane.top + lane.height / 2 - 11, 8, 22, 3)
      c.fill()
      c.fillStyle = this.colour('--panel')
      c.fillRect(x - 0.5, lane.top + lane.height / 2 - 5, 1, 10)
    }
  }

  private paintNow(scene: Scene, width: number, height: number): void {
    const c = this.context
    const x = Math.round(xAt(scene.view, width, scene.now))
    if (x < -40 || x > width + 40) return
    c.strokeStyle = this.colour('--live')
    c.setLineDash([3, 3])
    c.beginPath()
    c.moveTo(x + 0.5, axisHeight)
    c.lineTo(x + 0.5, height)
    c.stroke()
    c.setLineDash([])
    this.flag('now', x, 5, '--live', width)
  }

  private paintPlayhead(scene: Scene, t: Seconds, width: number, height: number): void {
    const c = this.context
    const x = xAt(scene.view, width, t)
    if (x < -60 || x > width + 60) return
    c.fillStyle = this.colour('--accent')
    c.fillRect(x - 1, axisHeight - 4, 2, height - axisHeight + 4)
    this.flag(formatClock(t, this.zone), x, 5, '--accent', width)
  }

  private paintHover(scene: Scene, t: Seconds, width: number, lane: { top: number; height: number }): void {
    const c = this.context
    c.fillStyle = this.colour('--text')
    c.globalAlpha = spanAt(scene.spans, t) ? 0.75 : 0.35
    c.fillRect(xAt(scene.view, width, t) - 0.5, lane.top, 1, lane.height)
    c.globalAlpha = 1
  }

  // flag draws a label centred on x, kept inside the canvas.
  private flag(text: string, x: number, y: number, colour: string, width: number): void {
    const c = this.context
    c.font = `600 11px ${this.colour('--font')}`
    const w = c.measureText(text).width + 12
    const left = Math.min(Math.max(x - w / 2, 0), width - w)
    c.fillStyle = this.colour(colour)
    c.beginPath()
    c.roundRect(left, y, w, 17, 4)
    c.fill()
    c.fillStyle = this.colour('--panel')
    c.textAlign = 'center'
    c.fillText(text, left + w / 2, y + 9)
  }

  private colour(name: string): string {
    return this.colours.get(name) ?? ''
  }

  private pattern(look: Look): CanvasPattern | undefined {
    const size = 8
    const tile = document.createElement('canvas')
    tile.width = tile.height = size * this.ratio
    const c = tile.getContext('2d')
    if (!c || look.pattern === 'solid') return undefined
    c.scale(this.ratio, this.ratio)
    c.fillStyle = c.strokeStyle = this.colour(look.colour)
    c.globalAlpha = 0.24
    c.fillRect(0, 0, size, size)
    c.globalAlpha = 1
    strokePattern(c, look.pattern, size)
    const pattern = this.context.createPattern(tile, 'repeat')
    pattern?.setTransform(new DOMMatrix().scale(1 / this.ratio))
    return pattern ?? undefined
  }
}

function strokePattern(c: CanvasRenderingContext2D, pattern: Look['pattern'], size: number): void {
  c.beginPath()
  if (pattern === 'dots') {
    for (const [x, y] of [
      [2, 2],
      [6, 6],
    ] as const)
      c.roundRect(x - 1, y - 1, 2, 2, 1)
    return c.fill()
  }
  c.lineWidth = pattern === 'stripes' ? 2.4 : 1.3
  if (pattern !== 'none') {
    for (const d of [-size, 0, size]) {
      c.moveTo(d - 1, size + 1)
      c.lineTo(d + size + 1, -1)
      if (pattern !== 'cross') continue
      c.moveTo(d - 1, -1)
      c.lineTo(d + size + 1, size + 1)
    }
  }
  c.stroke()
}
