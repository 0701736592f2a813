import { expect, it } from 'vitest'
import { Backoff } from './backoff'

it('doubles up to a bound and starts over after a success', () => {
  const b = new Backoff(() => 1)
  expect([1, 2, 3, 4, 5, 6].map(() => b.next())).toEqual([250, 500, 1000, 2000, 3000, 3000])
  b.reset()
  expect(b.next()).toBe(250)
})

it('spreads over the upper half', () => expect(new Backoff(() => 0).next()).toBe(125))
