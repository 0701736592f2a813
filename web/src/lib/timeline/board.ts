import { now, type Range, type Seconds } from '../time'
import { Painter } from './paint'
import type { Span } from './spans'
import { bound, pan, reveal, timeAt, viewBefore, xAt, zoomAt, type View } from './view'

// The time line as the operator handles it: a canvas, the pointer, the wheel and the keys. It lives
// outside the framework, is told of facts, and tells of wishes.

export interface BoardEvents {
  seek: (t: Seconds) => void
  viewed: (view: View) => void // the view was moved or zoomed
  selected: (range: Range | undefined) => void
  hovered: (at: { t: Seconds; x: number } | undefined) => void
  following: (on: boolean) => void
}

type Drag =
  | { kind: 'pan'; x: number; view: View; moved: boolean }
  | { kind: 'select'; from: Seconds }
  | { kind: 'pinch'; distance: number; view: View }

const grab = 9 // pixels around a handle that still catch it
const clickSlop = 4 // pixels that a click may wander

export class Board {
  view: View
  private spans: Span[] = []
  private locks: Range[] = []
  private playhead?: Seconds
  private selection?: Range
  private hover?: Seconds
  private follow = true
  private drag?: Drag
  private readonly pointers = new Map<number, number>()
  private painter?: Painter
  private painted = ''
  private dirty = true
  private frame = 0
  private size = { width: 0, height: 0 }
  private readonly observer: ResizeObserver
  private readonly scheme = matchMedia('(prefers-color-scheme: light)')
  private readonly over = new AbortController()

  constructor(
    private readonly canvas: HTMLCanvasElement,
    length: Seconds,
    private readonly events: BoardEvents,
  ) {
    this.view = viewBefore(now(), length)
    this.observer = new ResizeObserver(() => this.resize())
    this.observer.observe(canvas)
    const options = { signal: this.over.signal }
    canvas.addEventListener('pointerdown', this.down, options)
    canvas.addEventListener('pointermove', this.moved, options)
    canvas.addEventListener('pointerup', this.up, options)
    canvas.addEventListener('pointercancel', this.up, options)
    canvas.addEventListener('pointerleave', () => this.hoverAt(undefined), options)
    canvas.addEventListener('wheel', this.wheel, { ...options, passive: false })
    this.scheme.addEventListener('change', () => this.resize(), options)
    this.resize()
    this.frame = requestAnimationFrame(this.tick)
  }

  close(): void {
    cancelAnimationFrame(this.frame)
    this.observer.disconnect()
    this.over.abort()
  }

  get width(): number {
    return this.size.width
  }

  setSpans(spans: Span[]): void {
    this.spans = spans
    this.dirty = true
  }

  setLocks(locks: Range[]): void {
    this.locks = locks
    this.dirty = true
  }

  setPlayhead(t: Seconds | undefined): void {
    this.playhead = t
  }

  setSelection(range: Range | undefined): void {
    this.selection = range
    this.dirty = true
  }

  /** Keeps the playhead, or the present if there is none, in view as it moves. */
  setFollow(on: boolean): void {
    if (on === this.follow) return
    this.follow = on
    this.events.following(on)
  }

  /** Shows the given length: around the playhead, or up to now while following it. */
  setLength(length: Seconds): void {
    const centre = this.playhead ?? now()
    const shown = this.follow && now() - centre < length / 3
    this.setView(shown ? viewBefore(now(), length) : { start: centre - length / 2, end: centre + length / 2 })
  }

  zoom(factor: number): void {
    const middle = (this.view.start + this.view.end) / 2
    const inside = this.playhead !== undefined && this.playhead > this.view.start && this.playhead < this.view.end
    this.setView(zoomAt(this.view, inside ? this.playhead! : middle, factor))
  }

  private setView(view: View): void {
    this.view = bound(view, now())
    this.dirty = true
    this.events.viewed(this.view)
  }

  private resize(): void {
    const box = this.canvas.getBoundingClientRect()
    const ratio = devicePixelRatio || 1
    this.size = { width: box.width, height: box.height }
    this.canvas.width = Math.round(box.width * ratio)
    this.canvas.height = Math.round(box.height * ratio)
    const context = this.canvas.getContext('2d')
    this.painter = context ? new Painter(context, getComputedStyle(this.canvas), ratio) : undefined
    this.dirty = true
  }

  // tick paints when something moved by half a pixel or more, so a quiet time line costs nothing.
  private readonly tick = () => {
    this.frame = requestAnimationFrame(this.tick)
    if (this.size.width === 0) return
    const t = now()
    if (this.follow && !this.drag) {
      const moved = reveal(this.view, this.playhead ?? t, this.playhead && t - this.playhead > 5 ? 0.06 : 0.04)
      if (moved !== this.view) this.setView(moved)
    }
    const half = (this.view.end - this.view.start) / this.size.width / 2
    const key =
      [this.playhead ?? 0, t, this.view.start].map((v) => Math.round(v / half)).join() +
      Math.round(this.playhead ?? 0)
    if (!this.dirty && key === this.painted) return
    this.dirty = false
    this.painted = key
    const { view, spans, locks, playhead, selection, hover } = this
    const scene = { view, spans, locks, playhead, selection, hover, now: t }
    this.painter?.paint(scene, this.size.width, this.size.height)
  }

  private x(e: MouseEvent): number {
    return e.clientX - this.canvas.getBoundingClientRect().left
  }

  private time(x: number): Seconds {
    return timeAt(this.view, this.size.width, x)
  }

  // handleAt returns the other end of the selection when x is on one of its handles.
  private handleAt(x: number): Seconds | undefined {
    if (!this.selection) return undefined
    const { start, end } = this.selection
    if (Math.abs(xAt(this.view, this.size.width, start) - x) < grab) return end
    if (Math.abs(xAt(this.view, this.size.width, end) - x) < grab) return start
    return undefined
  }

  private readonly down = (e: PointerEvent) => {
    if (e.button !== 0) return
    const x = this.x(e)
    this.canvas.setPointerCapture(e.pointerId)
    this.pointers.set(e.pointerId, x)
    if (this.pointers.size === 2) {
      this.drag = { kind: 'pinch', distance: this.spread(), view: this.view }
      return
    }
    const other = this.handleAt(x)
    if (other !== undefined) this.drag = { kind: 'select', from: other }
    else if (e.shiftKey) this.drag = { kind: 'select', from: this.time(x) }
    else this.drag = { kind: 'pan', x, view: this.view, moved: false }
  }

  private readonly moved = (e: PointerEvent) => {
    const x = this.x(e)
    this.hoverAt(e.pointerType === 'mouse' || this.drag ? x : undefined)
    if (this.pointers.has(e.pointerId)) this.pointers.set(e.pointerId, x)
    const drag = this.drag
    if (!drag) {
      this.canvas.style.cursor = this.handleAt(x) !== undefined ? 'ew-resize' : e.shiftKey ? 'crosshair' : 'pointer'
    } else if (drag.kind === 'pinch') {
      this.pinch(drag)
    } else if (drag.kind === 'select') {
      this.select(drag.from, this.time(x))
    } else if (drag.moved || Math.abs(x - drag.x) > clickSlop) {
      drag.moved = true
      this.canvas.style.cursor = 'grabbing'
      this.setFollow(false)
      const perPixel = (drag.view.end - drag.view.start) / this.size.width
      this.setView(pan(drag.view, (drag.x - x) * perPixel))
    }
  }

  private readonly up = (e: PointerEvent) => {
    this.pointers.delete(e.pointerId)
    const drag = this.drag
    this.drag = undefined
    if (e.type === 'pointerup' && drag?.kind === 'pan' && !drag.moved) this.events.seek(this.time(this.x(e)))
  }

  private pinch(drag: Drag & { kind: 'pinch' }): void {
    const xs = [...this.pointers.values()]
    const middle = timeAt(drag.view, this.size.width, xs.reduce((a, b) => a + b, 0) / xs.length)
    this.setFollow(false)
    this.setView(zoomAt(drag.view, middle, drag.distance / Math.max(this.spread(), 10)))
  }

  private spread(): number {
    const xs = [...this.pointers.values()]
    return Math.max(...xs) - Math.min(...xs)
  }

  private select(a: Seconds, b: Seconds): void {
    const range = { start: Math.min(a, b), end: Math.min(Math.max(a, b), now()) }
    const narrow = range.end - range.start < ((this.view.end - this.view.start) / this.size.width) * clickSlop
    this.selection = narrow ? undefined : range
    this.dirty = true
    this.events.selected(this.selection)
  }

  private readonly wheel = (e: WheelEvent) => {
    e.preventDefault()
    const lines = e.deltaMode === WheelEvent.DOM_DELTA_LINE ? 20 : 1
    const perPixel = (this.view.end - this.view.start) / this.size.width
    if (Math.abs(e.deltaX) > Math.abs(e.deltaY) || e.shiftKey) {
      this.setFollow(false)
      return this.setView(pan(this.view, (e.deltaX || e.deltaY) * lines * perPixel))
    }
    const factor = Math.exp(Math.max(-0.5, Math.min(0.5, e.deltaY * lines * (e.ctrlKey ? 0.01 : 0.0016))))
    const anchor = this.follow ? (this.playhead ?? now()) : this.time(this.x(e))
    this.setView(zoomAt(this.view, anchor, factor))
  }

  private hoverAt(x: number | undefined): void {
    this.hover = x === undefined ? undefined : this.time(x)
    this.dirty = true
    this.events.hovered(x === undefined ? undefined : { t: this.hover!, x })
  }
}
