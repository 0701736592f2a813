import type { Link } from './api'
import { parseTime } from './time'

/** What went in each direction between two looks at one link, in bits a second, without what was lost. */
export function linkRates(before?: Link, now?: Link): { sent: number; received: number } | undefined {
  if (!before || !now || before.since !== now.since) return undefined
  const past = parseTime(now.at) - parseTime(before.at)
  if (past <= 0) return undefined
  const lost = Math.max(0, now.lostBytes - before.lostBytes)
  return {
    sent: (8 * Math.max(0, now.sentBytes - before.sentBytes - lost)) / past,
    received: (8 * Math.max(0, now.receivedBytes - before.receivedBytes)) / past,
  }
}

/** The share of what was sent that was lost, in words. */
export function lossShare(link: Link): string {
  const share = link.sentBytes > 0 ? (100 * link.lostBytes) / link.sentBytes : 0
  return `${share.toFixed(share > 0 && share < 10 ? 2 : 0)} %`
}

/** A number of bytes in words. */
export function megabytes(bytes: number): string {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`
}
