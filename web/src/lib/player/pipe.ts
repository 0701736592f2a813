import type { Range } from '../time'

// A Pipe feeds one video element through one SourceBuffer. Its operations run one after the other in
// the order in which they were asked for. A pipe that failed stays failed; make a new one.

const most = 32 << 20 // bytes waiting to be appended: more means that the browser is stuck

export function mime(codecs: string): string {
  return `video/mp4; codecs="${codecs}"`
}

/** Whether this browser plays the codecs at all. */
export function playable(codecs: string): boolean {
  const source = sourceClass()
  return source !== undefined && (codecs === '' || source.isTypeSupported(mime(codecs)))
}

function sourceClass(): typeof MediaSource | undefined {
  const all = globalThis as { MediaSource?: typeof MediaSource; ManagedMediaSource?: typeof MediaSource }
  return all.MediaSource ?? all.ManagedMediaSource // the latter alone on iPhones
}

export class Pipe {
  private readonly source: MediaSource
  private readonly address: string
  private buffer?: SourceBuffer
  private type = ''
  private tail: Promise<void>
  private waiting = 0
  private over = false

  /** failed is called at most once. The video's previous content is replaced. */
  constructor(
    private readonly video: HTMLVideoElement,
    private readonly failed: (why: string) => void,
  ) {
    const source = sourceClass()
    if (!source) throw new Error('this browser has no Media Source Extensions')
    this.source = new source()
    this.address = URL.createObjectURL(this.source)
    this.tail = new Promise((open) => this.source.addEventListener('sourceopen', () => open(), { once: true }))
    video.disableRemotePlayback = true
    video.addEventListener('error', this.broken)
    video.src = this.address
  }

  /** The ranges that can be shown at once, ascending. */
  get ranges(): Range[] {
    if (!this.buffer || this.over) return []
    try {
      const b = this.buffer.buffered
      return Array.from({ length: b.length }, (_, i) => ({ start: b.start(i), end: b.end(i) }))
    } catch {
      return [] // the source was closed by the browser
    }
  }

  /** Prepares for data of the given type, which an init segment then begins. */
  setType(type: string): Promise<void> {
    return this.then(() => {
      if (this.type === type) return
      this.type = type
      if (this.buffer) return this.buffer.changeType(type)
      this.buffer = this.source.addSourceBuffer(type)
      this.buffer.mode = 'segments'
    })
  }

  /** Appends data; resolves when the browser has taken it. data belongs to the pipe from now on. */
  append(data: BufferSource): Promise<void> {
    this.waiting += data.byteLength
    if (this.waiting > most) this.fail('the browser takes no more picture')
    return this.then(async () => {
      try {
        await this.change((b) => b.appendBuffer(data))
      } catch (err) {
        if (!(err instanceof DOMException && err.name === 'QuotaExceededError')) throw err
        await this.change((b) => b.remove(0, Math.max(this.video.currentTime - 2, 0.1)))
        await this.change((b) => b.appendBuffer(data))
      } finally {
        this.waiting -= data.byteLength
      }
    })
  }

  remove(start: number, end: number): Promise<void> {
    const some = () => this.ranges.length > 0 && end > start
    return this.then(() => (some() ? this.change((b) => b.remove(start, end)) : undefined))
  }

  close(): void {
    if (this.over) return
    this.over = true
    this.video.removeEventListener('error', this.broken)
    URL.revokeObjectURL(this.address)
    if (this.video.src === this.address) {
      this.video.removeAttribute('src')
      this.video.load()
    }
  }

  private then(op: () => void | Promise<void>): Promise<void> {
    this.tail = this.tail.then(async () => {
      if (this.over) return
      try {
        await op()
      } catch (err) {
        this.fail(String(err))
      }
    })
    return this.tail
  }

  private async change(op: (b: SourceBuffer) => void): Promise<void> {
    const b = this.buffer
    if (!b) throw new Error('data before their type')
    if (this.source.readyState !== 'open') throw new Error('the browser closed the media source')
    const done = new Promise<void>((resolve) => b.addEventListener('updateend', () => resolve(), { once: true }))
    op(b)
    await done
  }

  private readonly broken = () => this.fail(this.video.error?.message || 'the picture cannot be decoded')

  private fail(why: string): void {
    if (this.over) return
    this.close()
    this.failed(why)
  }
}
