import { expect, it } from 'vitest'
import { concat } from './boxes'
import { Silencer, videoCodecs } from './silent'

function box(type: string, ...content: Uint8Array[]): Uint8Array {
  const body = concat(...content)
  const head = new Uint8Array(8)
  new DataView(head.buffer).setUint32(0, 8 + body.length)
  head.set(new TextEncoder().encode(type), 4)
  return concat(head, body)
}

function words(...numbers: number[]): Uint8Array {
  const out = new Uint8Array(numbers.length * 4)
  numbers.forEach((n, i) => new DataView(out.buffer).setUint32(i * 4, n))
  return out
}

const text = (s: string) => new TextEncoder().encode(s)
const trak = (id: number, kind: string) =>
  box('trak', box('tkhd', words(0, 0, 0, id)), box('mdia', box('hdlr', words(0, 0), text(kind), words(0, 0, 0))))
const trex = (id: number) => box('trex', words(0, id, 1, 0, 0, 0))
const init = (...kinds: string[]) =>
  concat(
    box('ftyp', words(1)),
    box(
      'moov',
      box('mvhd', words(0)),
      ...kinds.map((k, i) => trak(i + 1, k)),
      box('mvex', ...kinds.map((_, i) => trex(i + 1))),
    ),
  )
const fragment = (track: number) =>
  concat(box('moof', box('traf', box('tfhd', words(0, track)), box('tfdt', words(0, 7)))), box('mdat', words(1)))

it('keeps the video alone', () => {
  const s = new Silencer()
  const got = s.init(init('vide', 'soun'))
  expect(got).toEqual(init('vide'))
  expect([s.wants(fragment(1)), s.wants(fragment(2))]).toEqual([true, false])
})

it('leaves a stream without video as it is', () => {
  const s = new Silencer()
  expect(s.init(init('soun'))).toEqual(init('soun'))
  expect(s.wants(fragment(1))).toBe(true)
})

it.each([
  ['avc1.42c01e,mp4a.40.2', 'avc1.42c01e'],
  ['avc1.42c01e', 'avc1.42c01e'],
  ['opus', 'opus'],
  ['hvc1.1.6.L93.B0, opus', 'hvc1.1.6.L93.B0'],
])('codecs %s', (given, want) => expect(videoCodecs(given)).toBe(want))
