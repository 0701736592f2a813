import { expect, test } from 'vitest'
import { at } from './sites'

test('a site is at itself and at the hubs before it', () => {
  for (const [site, other, is] of [
    ['berlin', 'berlin', true],
    ['region.berlin', 'region', true],
    ['region.berlin', 'region.berlin', true],
    ['region', 'region.berlin', false],
    ['region-north.berlin', 'region', false],
  ] as const)
    expect(at(site, other), `${site} at ${other}`).toBe(is)
})
