import { expect, test } from 'vitest'
import type { Site } from './api'
import { standing, standingWords } from './standing'

const site = (state: Site['state'], peer?: NonNullable<Site['peer']>['state']): Site => ({
  id: 'berlin',
  state,
  cameras: 0,
  outages: [],
  peer: peer && { state: peer, since: '2026-01-01T00:00:00Z', reason: '', alarm: false },
})

test('a site stands as its peer does, and without one as its link or enrolment', () => {
  expect(standing(site('up'))).toBe('online')
  expect(standing(site('down'))).toBe('link-down')
  expect(standing(site('up', 'one-way'))).toBe('one-way')
  expect(standing(site('down', 'left'))).toBe('left')
  expect(standing(site('revoked', 'link-down'))).toBe('revoked')
  expect(standingWords(standing(site('down', 'unreachable')))).toBe('Unreachable from this hub')
})
