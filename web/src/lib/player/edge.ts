// The live edge: how a player that receives single frames stays a fixed small distance behind them.
// Pure, so that its decisions are tested without a browser.

export interface Buffered {
  start: number
  end: number
}

export interface LiveState {
  at: number // current time of the video
  ranges: Buffered[] // what is buffered, ascending
  target: number // distance to keep, from Target
  fresh?: boolean // the picture has only just begun
}

export interface LiveStep {
  seek?: number // jump here first
  rate: number // play at this rate
  lag: number // seconds of picture between what is shown and what has arrived
}

const jumpBeyond = 1.2 // seconds of lag above which a jump disturbs less than catching up
const jumpBeyondFresh = 0.4 // a stream begins with all since its newest key frame, which nobody wants to watch
const slack = 0.04 // one frame at 25 a second: lag swings by as much with every arrival
const fastest = 1.5 // a jump costs more: the browser decodes anew from the last key frame

/** Decides from what is buffered whether to jump and how fast to play. */
export function follow(state: LiveState): LiveStep {
  const last = state.ranges.at(-1)
  if (!last) return { rate: 1, lag: 0 }
  const lag = last.end - state.at
  const landing = Math.max(last.start, last.end - state.target)
  const far = state.fresh ? jumpBeyondFresh : jumpBeyond
  if (state.at < last.start - 0.01 || lag > far || lag < -0.5) {
    return { seek: landing, rate: 1, lag: last.end - landing }
  }
  const over = lag - state.target
  if (over > slack) return { rate: Math.min(1 + 1.5 * over, fastest), lag }
  if (lag < state.target * 0.3) return { rate: 0.96, lag }
  return { rate: 1, lag }
}

const least = 0.08
const most = 0.35

/** The distance to keep: grows when the picture stood still for want of frames, shrinks when it has not. */
export class Target {
  private value = 0.12

  get seconds(): number {
    return this.value
  }

  stalled(): void {
    this.value = Math.min(this.value + 0.04, most)
  }

  /** To be called about once a second while the picture runs. */
  steady(): void {
    this.value = Math.max(this.value - 0.015, least)
  }
}

const keep = 15
const evictAbove = 25 // well above any usual key-frame interval: removal runs on to the next key frame

/** Up to where old picture is to be removed, or undefined when it is not worth it yet. */
export function evictBefore(at: number, ranges: Buffered[]): number | undefined {
  const first = ranges[0]
  return first && at - first.start > evictAbove ? at - keep : undefined
}
