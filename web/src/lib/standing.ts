import type { Site } from './api'

// How a site stands, in words. A site that was never linked stands as its enrolment does.

export type Standing = NonNullable<Site['peer']>['state'] | 'enrolling' | 'waiting' | 'quarantined' | 'revoked'

const words: Record<Standing, string> = {
  online: 'Online',
  suspect: 'Not heard of',
  'link-down': 'Link down',
  unreachable: 'Unreachable from this hub',
  'one-way': 'One way only',
  left: 'Stopped',
  enrolling: 'Waiting for its edge',
  waiting: 'Waits for approval',
  quarantined: 'Quarantined',
  revoked: 'Revoked',
}

export function standing(site: Site): Standing {
  if (site.state !== 'up' && site.state !== 'down') return site.state
  return site.peer?.state ?? (site.state === 'up' ? 'online' : 'link-down')
}

export function standingWords(state: Standing): string {
  return words[state]
}
