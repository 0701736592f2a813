import { expect, test } from 'vitest'
import type { Link } from './api'
import { linkRates, lossShare, megabytes } from './link'

function link(over: Partial<Link>): Link {
  return {
    at: '2026-03-01T08:00:00Z',
    since: '2026-03-01T07:00:00Z',
    carrier: 'quic',
    connections: 1,
    handshakes: 1,
    rttMs: 1,
    leastRttMs: 1,
    sentBytes: 0,
    receivedBytes: 0,
    lostBytes: 0,
    ...over,
  }
}

test('rates are taken between two looks at one link', () => {
  const now = link({ at: '2026-03-01T08:00:02Z', sentBytes: 3000, lostBytes: 1000, receivedBytes: 5000 })
  expect(linkRates(link({}), now)).toEqual({ sent: 8000, received: 20000 })
  expect(linkRates(undefined, now)).toBeUndefined()
  expect(linkRates(now, now)).toBeUndefined()
  expect(linkRates(link({ since: '2026-03-01T06:00:00Z' }), now)).toBeUndefined()
})

test('figures in words', () => {
  expect(lossShare(link({}))).toBe('0 %')
  expect(lossShare(link({ sentBytes: 1000, lostBytes: 5 }))).toBe('0.50 %')
  expect(megabytes(1_250_000)).toBe('1.3 MB')
  expect(megabytes(12_340_000_000)).toBe('12.34 GB')
})
