import createClient from 'openapi-fetch'
import type { components, paths } from './api.gen'

// The hub's API as the page uses it: each call answers what was asked for or throws a Fault, whose
// message is fit to be shown.

export type Site = components['schemas']['Site']
export type Camera = components['schemas']['Camera']
export type Stream = components['schemas']['Stream']
export type Session = components['schemas']['Session']
export type Retrieval = components['schemas']['Retrieval']
export type Lock = components['schemas']['Lock']
export type Enrolment = components['schemas']['Enrolment']
export type Timeline = components['schemas']['Timeline']
export type ApiSpan = components['schemas']['Span']
export type SpanState = components['schemas']['SpanState']
export type LiveMessage = components['schemas']['LiveMessage']
export type HubEvent = components['schemas']['Event']
export type Refusal = components['schemas']['Refusal']
export type Alternative = components['schemas']['Alternative']
export type Uplink = components['schemas']['Uplink']
export type Link = components['schemas']['Link']
export type AboveLink = components['schemas']['AboveLink']
export type ErrorCode = components['schemas']['ErrorCode']

export const api = createClient<paths>({ baseUrl: location.origin })

/** What went wrong, in words for the operator. Code "offline" means that no answer came at all. */
export class Fault extends Error {
  constructor(
    readonly code: ErrorCode | 'offline',
    message: string,
    readonly retryAfter = 0,
  ) {
    super(message)
  }
}

interface Answer<T> {
  data?: T
  error?: unknown
  response: Response
}

/** Waits for an answer of the client above and returns its data. */
export async function ask<T>(call: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>
  try {
    answer = await call
  } catch {
    throw new Fault(
      'offline',
      'The hub does not answer. Check your network; the page goes on by itself when it is back.',
    )
  }
  if (!answer.response.ok) throw faultOf(answer.response, answer.error)
  return answer.data as T
}

/** Reads the error that a failed response carries; body is its parsed JSON, if it had any. */
export function faultOf(response: Response, body: unknown): Fault {
  const error = (body as components['schemas']['Error'] | undefined)?.error
  const retry = Number(response.headers.get('Retry-After')) || 0
  if (error?.message) return new Fault(error.code, sentence(error.message), retry)
  return new Fault('internal', `The hub answered with status ${response.status}. Its log tells why.`, retry)
}

/** Makes a sentence of the API's lower-case messages. */
export function sentence(text: string): string {
  const s = text.trim()
  return s.charAt(0).toUpperCase() + s.slice(1) + (/[.!?]$/.test(s) ? '' : '.')
}

/** The words for whatever was thrown. */
export function wordsOf(err: unknown): string {
  return err instanceof Fault ? err.message : `Something failed in the page: ${String(err)}. Reload it.`
}

export function socketAddress(path: string): string {
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${path}`
}
