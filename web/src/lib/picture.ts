import type { Alternative, Camera, Site, Stream } from './api'
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
  if (status.state === 'refused') {
    return { title: 'The uplink is full', detail: `${capital(status.cause ?? 'it does not fit the budget')}.` }
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

/** What of the refused stream's alternatives a small picture takes by itself: the lightest. */
export function lightest(status: LiveStatus): Alternative | undefined {
  return [...(status.refusal?.instead ?? [])].sort((a, b) => Number(a.keyFrames) - Number(b.keyFrames))[0]
}

/** The words on the button for an alternative to a stream that was refused. */
export function alternativeName(a: Alternative, refused: string): string {
  const other = a.stream === refused ? '' : `${a.stream.slice(a.stream.lastIndexOf('.') + 1)} stream`
  const rate = a.need > 0 ? ` (${bitRate(a.need)})` : ''
  if (!a.keyFrames) return capital(`${other}${rate}`)
  return `Key frames only${other ? `, ${other}` : ''}${rate}`
}

/** Bits a second in words. */
export function bitRate(bits: number): string {
  if (bits < 1_000_000) return `${Math.round(bits / 1000)} kbit/s`
  return `${(bits / 1_000_000).toFixed(bits < 100_000_000 ? 1 : 0)} Mbit/s`
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
