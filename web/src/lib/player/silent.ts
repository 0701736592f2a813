import { boxSize, boxType, child, concat, decodeStart, view } from './boxes'

// Leaves the sound out of a live stream. A muted picture is better off without: the browser plays no
// frame before its sound is there, and after every hitch it wants more sound in hand than before.

/** The video codecs among the given ones; all if none is known as video. */
export function videoCodecs(codecs: string): string {
  const all = codecs.split(',').map((c) => c.trim())
  const video = all.filter((c) => /^(avc[13]|hvc1|hev1|av01|vp0?[89])/i.test(c))
  return video.length > 0 ? video.join(',') : codecs
}

/** Passes the video of one stream on, from its init segment and the fragments after it. */
export class Silencer {
  private video = new Set<number>()

  /** Returns the init segment with its video tracks alone, or as it is if it has none. */
  init(data: Uint8Array): Uint8Array<ArrayBuffer> {
    this.video.clear()
    const out = rewrite(data, (type, box) => (type === 'moov' ? this.moov(box) : box))
    return this.video.size > 0 ? out : concat(data)
  }

  /** Whether a fragment holds video. */
  wants(fragment: Uint8Array): boolean {
    const moof = child(fragment, 'moof')
    return !moof || this.video.size === 0 || this.video.has(decodeStart(moof).track)
  }

  private moov(moov: Uint8Array): Uint8Array {
    for (const trak of children(moov, 'trak')) {
      if (isVideo(trak)) this.video.add(trackNumber(trak))
    }
    return rebuild(moov, (type, box) => {
      if (type === 'trak') return this.video.has(trackNumber(box)) ? box : undefined
      if (type !== 'mvex') return box
      return rebuild(box, (t, b) => (t !== 'trex' || this.video.has(view(b).getUint32(12)) ? b : undefined))
    })
  }
}

type Edit = (type: string, box: Uint8Array) => Uint8Array | undefined

// rewrite edits a row of boxes, leaving out those for which edit returns nothing.
function rewrite(data: Uint8Array, edit: Edit): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = []
  for (let at = 0; at < data.length;) {
    const size = boxSize(data.subarray(at))
    if (size === undefined || at + size > data.length) throw new Error('a box runs past its end')
    const box = data.subarray(at, at + size)
    const edited = edit(boxType(box), box)
    if (edited) parts.push(edited)
    at += size
  }
  return concat(...parts)
}

// rebuild edits what is inside a box.
function rebuild(box: Uint8Array, edit: Edit): Uint8Array {
  const out = concat(box.subarray(0, 8), rewrite(box.subarray(8), edit))
  view(out).setUint32(0, out.length)
  return out
}

function children(box: Uint8Array, type: string): Uint8Array[] {
  const found: Uint8Array[] = []
  rewrite(box.subarray(8), (t, b) => {
    if (t === type) found.push(b)
    return b
  })
  return found
}

function isVideo(trak: Uint8Array): boolean {
  const mdia = child(trak.subarray(8), 'mdia')
  const hdlr = mdia && child(mdia.subarray(8), 'hdlr')
  return hdlr !== undefined && String.fromCharCode(...hdlr.subarray(16, 20)) === 'vide'
}

function trackNumber(trak: Uint8Array): number {
  const tkhd = child(trak.subarray(8), 'tkhd')
  if (!tkhd) return 0
  return view(tkhd).getUint32(tkhd[8] === 1 ? 28 : 20) // longer times in version 1
}
