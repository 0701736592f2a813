// Takes a stream of fragmented MP4 apart into what a player appends: init segments and fragments.
// Other boxes (prft, checksums, footers) are left out.

export interface Piece {
  kind: 'init' | 'fragment'
  data: Uint8Array<ArrayBuffer>
  track: number // of a fragment: its first track
  time: bigint // of a fragment: that track's first decode time, in the track's own units
}

const largest = 64 << 20 // bytes of one box: far above half a second of any camera

export class Splitter {
  private held: Uint8Array<ArrayBuffer> = new Uint8Array(0)
  private head?: Uint8Array<ArrayBuffer> // an ftyp that waits for its moov, a moof for its mdat

  /** Returns the pieces that chunk completes. Throws if the bytes are not MP4. */
  push(chunk: Uint8Array): Piece[] {
    this.held = concat(this.held, chunk)
    const pieces: Piece[] = []
    for (;;) {
      const size = boxSize(this.held)
      if (size === undefined || this.held.length < size) return pieces
      const box = this.held.slice(0, size)
      this.held = this.held.slice(size)
      const piece = this.take(box)
      if (piece) pieces.push(piece)
    }
  }

  private take(box: Uint8Array<ArrayBuffer>): Piece | undefined {
    const type = boxType(box)
    if (type === 'ftyp' || type === 'moof') {
      this.head = box
    } else if ((type === 'moov' || type === 'mdat') && this.head) {
      const data = concat(this.head, box)
      const start = type === 'mdat' ? decodeStart(this.head) : { track: 0, time: 0n }
      this.head = undefined
      return { kind: type === 'moov' ? 'init' : 'fragment', data, ...start }
    }
    return undefined
  }
}

export function concat(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0))
  let at = 0
  for (const p of parts) {
    joined.set(p, at)
    at += p.length
  }
  return joined
}

export function view(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength)
}

export function boxSize(data: Uint8Array): number | undefined {
  if (data.length < 8) return undefined
  let size = view(data).getUint32(0)
  if (size === 1) {
    if (data.length < 16) return undefined
    size = Number(view(data).getBigUint64(8))
  }
  if (size < 8 || size > largest) throw new Error(`a box of ${size} bytes is no video`)
  return size
}

export function boxType(data: Uint8Array): string {
  return String.fromCharCode(...data.subarray(4, 8))
}

// decodeStart reads the first track's number (tfhd) and base decode time (tfdt) of a moof.
export function decodeStart(moof: Uint8Array): { track: number; time: bigint } {
  const traf = child(moof.subarray(8), 'traf')
  const tfhd = traf && child(traf.subarray(8), 'tfhd')
  const tfdt = traf && child(traf.subarray(8), 'tfdt')
  if (!tfhd || !tfdt) throw new Error('a fragment without track or time')
  const long = tfdt[8] === 1
  return {
    track: view(tfhd).getUint32(12),
    time: long ? view(tfdt).getBigUint64(12) : BigInt(view(tfdt).getUint32(12)),
  }
}

/** The first box of a type in a row of boxes. */
export function child(data: Uint8Array, type: string): Uint8Array | undefined {
  for (;;) {
    const size = boxSize(data)
    if (size === undefined || size > data.length) return undefined
    if (boxType(data) === type) return data.subarray(0, size)
    data = data.subarray(size)
  }
}

/** Drops what a player was given already: windows overlap by up to a key-frame interval. */
export class Overlap {
  private init = ''
  private readonly last = new Map<number, bigint>() // decode time by track

  /** Whether the piece is new; if so it counts as given. */
  fresh(piece: Piece): boolean {
    if (piece.kind === 'init') {
      const text = piece.data.join()
      if (text === this.init) return false
      this.init = text
      return true
    }
    const last = this.last.get(piece.track)
    if (last !== undefined && piece.time <= last) return false
    this.last.set(piece.track, piece.time)
    return true
  }

  /** To be called when the player's buffer was emptied. */
  forget(): void {
    this.init = ''
    this.last.clear()
  }
}
