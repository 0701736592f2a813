import { Fault, faultOf, wordsOf } from '../api'
import { formatISO, now, type Range, type Seconds } from '../time'
import { concat, Overlap, Splitter } from './boxes'
import { Footage } from './footage'
import { Pipe, playable } from './pipe'
import { enough, jump, plan } from './windows'

// The player of recordings: consecutive windows of play.mp4, streamed into a Pipe no faster than they
// are watched. Where nothing is recorded it jumps to the next picture and says so.

export interface PlaybackStatus {
  state: 'loading' | 'playing' | 'paused' | 'unavailable' | 'unsupported' | 'end'
  message?: string
}

export interface PlaybackEvents {
  status: (s: PlaybackStatus) => void
  skipped: (over: Range) => void
  caughtUp: () => void // everything up to now was played
  ended: () => void // the session is over
}

const pulse = 100
const keepBehind: Seconds = 20
const evictBehind: Seconds = 45
const retryAfter = 2000 // milliseconds until a window that could not be had is asked for again

export class Playback {
  private pipe?: Pipe
  private turn = new AbortController() // ends with every seek out of what is buffered
  private next: Seconds = 0
  private start: Seconds = 0 // of what is shown since the last seek
  private rate = 1
  private wanted = true // whether to play
  private timer: number
  private frame = 1 / 25
  private lastShown = 0
  private lastAt = 0 // current time at the last look
  private trouble?: PlaybackStatus
  private drained = false // nothing further is recorded at present
  private said = ''
  private closed = false
  private readonly overlap = new Overlap()
  private readonly footage: Footage

  constructor(
    private readonly video: HTMLVideoElement,
    camera: string,
    private readonly stream: string,
    private readonly events: PlaybackEvents,
  ) {
    this.footage = new Footage(camera, stream)
    this.timer = window.setInterval(this.beat, pulse)
    this.watchFrames()
  }

  get at(): Seconds {
    return this.video.currentTime || this.start
  }

  /** Shows the picture at t, or the next one after it. */
  seek(t: Seconds): void {
    const inside = this.pipe?.ranges.find((r) => t >= r.start && t < r.end - 0.2)
    this.trouble = undefined
    if (inside && this.video.readyState > 0) {
      this.video.currentTime = t
      return
    }
    this.turn.abort()
    this.turn = new AbortController()
    this.next = t
    this.drained = false
    this.overlap.forget()
    void this.pipe?.remove(0, Infinity)
    void this.run(this.turn.signal, t)
  }

  play(): void {
    this.wanted = true
  }

  pause(): void {
    this.wanted = false
    this.video.pause()
  }

  setRate(rate: number): void {
    this.rate = rate
    this.video.playbackRate = rate
  }

  /** Pauses and moves by whole frames. */
  step(frames: number): void {
    this.pause()
    this.seek(this.video.currentTime + frames * this.frame)
  }

  /** To be called when the camera's time line changed. */
  changed(): void {
    this.footage.forget()
  }

  close(): void {
    this.closed = true
    clearInterval(this.timer)
    this.turn.abort()
    this.pipe?.close()
    this.pipe = undefined
  }

  // run fetches windows until the next seek ends it.
  private async run(signal: AbortSignal, start: Seconds): Promise<void> {
    let placed = false
    while (!signal.aborted) {
      try {
        const playable = await this.footage.after(this.next)
        if (signal.aborted) return
        const step = plan({ next: this.next, buffered: this.ahead(), rate: this.rate, playable, now: now() })
        this.drained = step.do === 'wait'
        if (step.do !== 'fetch') {
          await pause(200, signal)
          continue
        }
        if (!placed) this.place(Math.max(step.from, start))
        placed = true
        await this.fetch(step.from, step.to, signal)
        this.next = step.to
        this.trouble = undefined
      } catch (err) {
        if (signal.aborted) return
        if (!(await this.recover(err, signal))) return
      }
    }
  }

  private place(t: Seconds): void {
    this.pipe ??= new Pipe(this.video, (why) => this.broke(why))
    this.start = this.video.currentTime = t
    this.video.defaultPlaybackRate = this.video.playbackRate = this.rate
  }

  // recover tells what is wrong and reports whether the fetching goes on.
  private async recover(err: unknown, signal: AbortSignal): Promise<boolean> {
    if (err instanceof Fault && err.code === 'unauthenticated') {
      this.events.ended()
      return false
    }
    if (err instanceof Unsupported) {
      this.trouble = { state: 'unsupported', message: err.message }
      return false
    }
    if (err instanceof Fault && err.code === 'nothing_recorded') {
      this.footage.forget()
      this.next += 1 // removed since the time line was asked for; look on behind it
    } else {
      this.trouble = { state: 'unavailable', message: wordsOf(err) }
    }
    const given = err instanceof Fault ? err.retryAfter * 1000 : 0
    await pause(this.trouble ? Math.max(given, retryAfter) : 200, signal)
    return true
  }

  private async fetch(from: Seconds, to: Seconds, signal: AbortSignal): Promise<void> {
    let response: Response
    try {
      response = await fetch(playAddress(this.stream, { start: from, end: to }), { signal })
    } catch {
      throw new Fault('offline', 'The hub does not answer. Playback goes on when it is back.')
    }
    if (!response.ok || !response.body) throw faultOf(response, await response.json().catch(() => undefined))
    const type = response.headers.get('Content-Type') ?? ''
    const codecs = /codecs="([^"]*)"/.exec(type)?.[1] ?? ''
    if (!playable(codecs)) throw new Unsupported(codecs)
    await this.pipe?.setType(type)
    const splitter = new Splitter()
    const reader = response.body.getReader()
    for (;;) {
      const { done, value } = await reader.read()
      if (done || signal.aborted) return
      const fresh = splitter.push(value).filter((piece) => this.overlap.fresh(piece))
      if (fresh.length > 0) await this.pipe?.append(concat(...fresh.map((piece) => piece.data)))
      while (this.ahead() > 2 * enough(this.rate) && !signal.aborted) await pause(100, signal)
    }
  }

  private broke(why: string): void {
    this.pipe = undefined
    this.turn.abort()
    this.trouble = { state: 'loading', message: `Starting the picture anew: ${why}.` }
    const at = this.video.currentTime || this.next
    setTimeout(() => !this.pipe && !this.closed && this.seek(at + this.frame), retryAfter)
  }

  // ahead returns how much can be watched without a further byte.
  private ahead(): Seconds {
    const at = this.video.currentTime
    const ranges = this.pipe?.ranges ?? []
    return ranges.reduce((sum, r) => sum + Math.max(0, r.end - Math.max(r.start, at)), 0)
  }

  private readonly beat = () => {
    const pipe = this.pipe
    if (pipe) this.move(pipe)
    const s = this.statusNow()
    const text = JSON.stringify(s)
    if (text === this.said) return
    this.said = text
    this.events.status(s)
  }

  private move(pipe: Pipe): void {
    const ranges = pipe.ranges
    if (this.video.readyState === 0 || ranges.length === 0) return
    const at = this.video.currentTime
    if (at === 0) this.video.currentTime = this.start // a start before the first data may be lost
    const still = at === this.lastAt && this.wanted && this.video.readyState < 3 && !this.video.seeking
    this.lastAt = at
    const target = at === 0 ? undefined : jump(at, ranges, still)
    if (target !== undefined && !(this.video.seeking && target - at < 0.05)) {
      if (target - at > 1) this.events.skipped({ start: at, end: target })
      this.video.currentTime = target + 0.001
    }
    const first = ranges[0]
    if (first && at - first.start > evictBehind) void pipe.remove(0, at - keepBehind)
    if (this.wanted && this.video.paused) void this.video.play().catch(() => undefined)
    if (this.wanted && at > 0 && this.nearPresent(now() - at)) this.events.caughtUp()
  }

  // nearPresent reports whether playing on would only run into the present again and again.
  private nearPresent(behind: Seconds): boolean {
    return this.rate > 1 ? behind < 6 && this.ahead() < 3 : this.drained && behind < 8 && this.ahead() < 0.3
  }

  private statusNow(): PlaybackStatus {
    const shown = this.video.readyState >= 2
    if (this.trouble && !(shown && this.ahead() > 0.3)) return this.trouble
    const ahead = this.ahead()
    if (!shown || ahead < 0.05) return { state: this.drained && ahead < 0.3 ? 'end' : 'loading' }
    return { state: this.wanted ? 'playing' : 'paused' }
  }

  // watchFrames learns the length of a frame, for stepping.
  private watchFrames(): void {
    if (!('requestVideoFrameCallback' in this.video)) return
    this.video.requestVideoFrameCallback((_, meta) => {
      const d = meta.mediaTime - this.lastShown
      if (d > 0.004 && d < 1.01 && this.rate === 1) this.frame += (d - this.frame) * 0.5
      this.lastShown = meta.mediaTime
      if (!this.closed) this.watchFrames()
    })
  }
}

/** This browser cannot show the codecs; the footage itself is fine. */
class Unsupported extends Error {
  constructor(codecs: string) {
    super(
      `This browser does not play ${codecs || 'this format'}. Download the range and open it in a player such as VLC.`,
    )
  }
}

export function playAddress(stream: string, range: Range, download = false): string {
  const query = new URLSearchParams({ from: formatISO(range.start), to: formatISO(range.end) })
  if (download) query.set('download', 'true')
  return `/api/v1/streams/${encodeURIComponent(stream)}/play.mp4?${query}`
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
  })
}
