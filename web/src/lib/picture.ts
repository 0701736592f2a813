import type { Camera, Site, Stream } from './api'
import type { LiveStatus } from './player/live'
import { formatMoment, parseTime, type Seconds } from './time'

// Why a camera shows no picture, in words for the operator: "Why is there no video?" has an answer.

export interface Reason {
  title: string
  detail: string
}

/** The stream to show small: the lightest one that has a size, or the first. */
export function smallStream(camera: Camera): Stream | undefined {
  return camera.streams.find((s) => s.label === 'sub') ?? camera.streams[0]
}

/** The stream to show large. */
export function mainStream(camera: Camera): Stream | undefined {
  return camera.streams.find((s) => s.label === 'main') ?? camera.streams[0]
}

/** Undefined while there is a picture. */
export function whyNoPicture(
  site: Site | undefined,
  stream: Stream | undefined,
  status: LiveStatus,
  now: Seconds,
): Reason | undefined {
  if (site?.state === 'revoked') return { title: 'Site revoked', detail: 'Its certificate was withdrawn.' }
  if (site?.state === 'down') {
    const since = site.since ? ` since ${formatMoment(parseTime(site.since), now)}` : ''
    return { title: `Link down${since}`, detail: 'The branch goes on recording. The picture returns with the link.' }
  }
  if (status.state === 'unsupported') {
    return {
      title: 'This browser cannot play it',
      detail: `${status.cause ?? 'The format'}: record it, then download.`,
    }
  }
  const cause = status.state === 'interrupted' ? status.cause : undefined
  if (stream?.recording === 'interrupted' && status.state !== 'live') {
    return { title: 'No picture', detail: capital(stream.cause ?? cause ?? 'the camera sends none') }
  }
  if (status.state === 'interrupted') return { title: 'Interrupted', detail: capital(cause ?? 'connecting again') }
  if (status.state === 'silent') return { title: 'No new picture', detail: 'Nothing arrives from the branch.' }
  if (status.state === 'connecting') return { title: 'Connecting', detail: '' }
  return undefined
}

/** The link's round trip time in words, a dash while there is no link. */
export function roundTrip(site: Site): string {
  if (site.state !== 'up' || site.rttMs === undefined) return '–'
  return `${site.rttMs < 10 ? site.rttMs.toFixed(1) : Math.round(site.rttMs)} ms`
}

/** What carries the link, in words. */
export function carrier(site: Site): string {
  if (site.state !== 'up') return 'no link at present'
  if (site.carrier === 'tcp') return 'over TCP: UDP is blocked on the way'
  return site.carrier === 'quic' ? 'over QUIC' : 'over the link'
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
