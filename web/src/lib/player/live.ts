import { socketAddress, type LiveMessage, type Refusal } from '../api'
import { Backoff } from '../backoff'
import { now } from '../time'
import { evictBefore, follow, Target } from './edge'
import { mime, Pipe, playable } from './pipe'
import { Silencer, videoCodecs } from './silent'

// The live player: frames from the hub's WebSocket to a video element, a small fixed distance behind.

export interface LiveStatus {
  state: 'connecting' | 'live' | 'catching-up' | 'silent' | 'interrupted' | 'unsupported' | 'refused'
  cause?: string // why it is interrupted or refused, or the codecs that this browser lacks
  refusal?: Refusal // of the site's uplink budget
  delay?: number // seconds from the camera to this screen, if the clocks agree well enough to say
  missed: number // items that this viewer was too slow for
}

const pulse = 100 // milliseconds between looks at the distance
const freshFor = 1500 // milliseconds from a stream's first frame
const silentAfter = 2500 // milliseconds without a frame
const silentAfterKey = 12_000 // the same where only key frames come
const askAgain = 30_000 // milliseconds until a stream that was refused is asked for again
const sessionEnded = 1008
const tellEvery = 500 // milliseconds between reports of nothing but the delay

export class LivePlayer {
  private socket?: WebSocket
  private pipe?: Pipe
  private timer = 0
  private retry = 0
  private running = false
  private firstFrame = 0
  private lastFrame = 0
  private lastSteady = 0
  private lastStall = 0
  private initNext = false
  private lastTold = 0
  private readonly silencer = new Silencer()
  private target = new Target()
  private readonly backoff = new Backoff()
  private status: LiveStatus = { state: 'connecting', missed: 0 }

  /** sound false leaves the sound out; keyFrames asks for key frames only, which have none. changed is called with every new status; ended when the session is over. */
  constructor(
    private readonly video: HTMLVideoElement,
    private readonly stream: string,
    private readonly sound: boolean,
    private readonly keyFrames: boolean,
    private readonly changed: (status: LiveStatus) => void,
    private readonly ended: () => void,
  ) {}

  start(): void {
    if (this.running) return
    this.running = true
    this.video.addEventListener('waiting', this.stalled)
    this.timer = window.setInterval(this.beat, pulse)
    this.connect()
  }

  /** Gives up the connection and the picture; start begins anew. */
  stop(): void {
    this.running = false
    clearInterval(this.timer)
    clearTimeout(this.retry)
    this.video.removeEventListener('waiting', this.stalled)
    this.socket?.close()
    this.socket = undefined
    this.pipe?.close()
    this.pipe = undefined
  }

  private connect(): void {
    const query = this.keyFrames ? '?keyFrames=true' : ''
    const socket = new WebSocket(socketAddress(`/api/v1/streams/${encodeURIComponent(this.stream)}/live${query}`))
    socket.binaryType = 'arraybuffer'
    this.socket = socket
    if (this.status.state !== 'interrupted' && this.status.state !== 'refused') this.tell({ state: 'connecting' })
    socket.onmessage = (m) => {
      if (this.socket !== socket) return
      if (typeof m.data === 'string') this.message(JSON.parse(m.data) as LiveMessage)
      else this.frame(m.data as ArrayBuffer)
    }
    socket.onclose = (e) => {
      if (this.socket !== socket) return
      if (e.code === sessionEnded) return this.ended()
      if (this.status.state === 'refused') return this.again(askAgain)
      this.tell({ state: 'interrupted', cause: e.reason || this.status.cause })
      this.again()
    }
  }

  private again(after = this.backoff.next()): void {
    this.socket?.close()
    this.socket = undefined
    clearTimeout(this.retry)
    this.retry = window.setTimeout(() => this.running && this.connect(), after)
  }

  private message(m: LiveMessage): void {
    if (m.type === 'start') return this.begin(m.codecs ?? '')
    if (m.type === 'missed') return this.tell({ missed: this.status.missed + (m.count ?? 0) })
    if (m.type === 'refused') return this.tell({ state: 'refused', cause: m.cause, refusal: m.refusal })
    this.tell({ state: 'interrupted', cause: m.cause })
  }

  private begin(codecs: string): void {
    if (!this.sound) codecs = videoCodecs(codecs)
    this.initNext = true
    this.firstFrame = performance.now()
    if (!playable(codecs)) return this.tell({ state: 'unsupported', cause: codecs })
    if (this.status.state === 'unsupported' || this.status.state === 'refused')
      this.tell({ state: 'connecting', cause: undefined, refusal: undefined })
    this.pipe ??= new Pipe(this.video, (why) => this.broke(why))
    void this.pipe.setType(mime(codecs))
  }

  private frame(data: ArrayBuffer): void {
    this.lastFrame = performance.now()
    if (!this.pipe) return
    const piece = this.sound ? data : this.silenced(new Uint8Array(data))
    this.initNext = false
    if (piece) void this.pipe.append(piece).then(this.catchUp)
  }

  // silenced returns what of the message is video, if any.
  private silenced(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
    if (this.initNext) return this.silencer.init(data)
    return this.silencer.wants(data) ? data : undefined
  }

  private broke(why: string): void {
    this.pipe = undefined
    this.tell({ state: 'interrupted', cause: why })
    if (this.running) this.again()
  }

  private readonly stalled = () => {
    if (!this.video.seeking && performance.now() - this.lastStall > 1000) this.target.stalled()
    this.lastStall = performance.now()
  }

  // catchUp follows the live edge; it runs after every frame, because the first one decides how soon
  // there is a picture.
  private readonly catchUp = () => {
    if (!this.pipe || this.video.seeking) return
    const ranges = this.pipe.ranges
    if (ranges.length === 0) return
    const fresh = performance.now() - this.firstFrame < freshFor
    const step = follow({ at: this.video.currentTime, ranges, target: this.target.seconds, fresh })
    if (step.seek !== undefined) this.video.currentTime = step.seek
    if (this.video.playbackRate !== step.rate) this.video.playbackRate = step.rate
    if (this.video.paused) void this.video.play().catch(() => undefined)
  }

  private readonly beat = () => {
    if (!this.pipe || !this.socket) return
    const quiet = performance.now() - this.lastFrame
    if (quiet > (this.keyFrames ? silentAfterKey : silentAfter)) {
      const stood = this.status.state === 'live' || this.status.state === 'catching-up'
      return stood ? this.tell({ state: 'silent' }) : undefined
    }
    this.catchUp()
    const ranges = this.pipe.ranges
    const last = ranges.at(-1)
    if (!last || this.video.readyState < 2) return
    const lag = last.end - this.video.currentTime
    this.backoff.reset()
    this.tell({ state: lag > 1 ? 'catching-up' : 'live', delay: now() - this.video.currentTime, cause: undefined, refusal: undefined })
    const until = evictBefore(this.video.currentTime, ranges)
    if (until !== undefined) void this.pipe.remove(0, until)
    if (performance.now() - Math.max(this.lastSteady, this.lastStall) > 1000) {
      this.lastSteady = performance.now()
      this.target.steady()
    }
  }

  private tell(change: Partial<LiveStatus>): void {
    const same = change.state === this.status.state && change.cause === this.status.cause
    if (same && performance.now() - this.lastTold < tellEvery) return
    this.lastTold = performance.now()
    this.status = { ...this.status, ...change }
    this.changed(this.status)
  }
}
