import { describe, expect, it } from 'vitest'
import { concat, Overlap, Splitter, type Piece } from './boxes'

function box(type: string, ...content: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const body = concat(...content)
  const head = new Uint8Array(8)
  new DataView(head.buffer).setUint32(0, 8 + body.length)
  head.set(new TextEncoder().encode(type), 4)
  return concat(head, body)
}

function fragment(track: number, time: number): Uint8Array {
  const tfhd = new Uint8Array(8)
  new DataView(tfhd.buffer).setUint32(4, track)
  const tfdt = new Uint8Array(12)
  tfdt[0] = 1
  new DataView(tfdt.buffer).setBigUint64(4, BigInt(time))
  const moof = box('moof', box('mfhd', new Uint8Array(8)), box('traf', box('tfhd', tfhd), box('tfdt', tfdt)))
  return concat(
    box('prft', new Uint8Array(12)),
    moof,
    box('mdat', new Uint8Array(50)),
    box('uuid', new Uint8Array(24)),
  )
}

const init = concat(box('ftyp', new Uint8Array(4)), box('moov', new Uint8Array(40)))
const show = (p: Piece) => (p.kind === 'init' ? 'init' : `${p.track}@${p.time}`)

describe('splitter', () => {
  const all = concat(
    init,
    fragment(1, 90000),
    fragment(2, 48000),
    fragment(1, 2 ** 40),
    box('uuid', new Uint8Array(9)),
  )

  it.each([1, 7, 64, 10000])('finds init segments and fragments in chunks of %i bytes', (size) => {
    const splitter = new Splitter()
    const found: Piece[] = []
    for (let at = 0; at < all.length; at += size) found.push(...splitter.push(all.subarray(at, at + size)))
    expect(found.map(show)).toEqual(['init', '1@90000', '2@48000', `1@${2 ** 40}`])
    expect(found[0]!.data).toEqual(init)
  })

  it('refuses what is no MP4', () => {
    expect(() => new Splitter().push(new TextEncoder().encode('\0\0\0\x02nope'))).toThrow()
    expect(() => new Splitter().push(new Uint8Array(16).fill(0xff))).toThrow()
  })
})

describe('overlap', () => {
  const given = (overlap: Overlap, ...parts: Uint8Array[]) =>
    new Splitter()
      .push(concat(...parts))
      .filter((p) => overlap.fresh(p))
      .map(show)

  it('drops what the window before brought', () => {
    const overlap = new Overlap()
    expect(given(overlap, init, fragment(1, 0), fragment(1, 10), fragment(1, 20))).toEqual([
      'init',
      '1@0',
      '1@10',
      '1@20',
    ])
    expect(given(overlap, init, fragment(1, 10), fragment(1, 20), fragment(1, 30))).toEqual(['1@30'])
    expect(given(overlap, init, fragment(2, 10))).toEqual(['2@10'])
  })

  it('begins anew after a seek', () => {
    const overlap = new Overlap()
    given(overlap, init, fragment(1, 50))
    overlap.forget()
    expect(given(overlap, init, fragment(1, 20))).toEqual(['init', '1@20'])
  })
})
