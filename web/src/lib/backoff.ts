// Waiting times between attempts: they double from 250 ms to 3 s and are spread over the upper half, so
// that many pages do not come back to a restarted hub in step.

const first = 250
const most = 3000

export class Backoff {
  private attempts = 0

  constructor(private readonly random: () => number = Math.random) {}

  /** Milliseconds to wait before the next attempt. */
  next(): number {
    const full = Math.min(first * 2 ** this.attempts, most)
    this.attempts++
    return full * (0.5 + 0.5 * this.random())
  }

  /** To be called after a success. */
  reset(): void {
    this.attempts = 0
  }
}
