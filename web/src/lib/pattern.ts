// The mark of the synthetic camera, read from a picture on a canvas: the counterpart of DecodePattern in
// internal/testcam/pattern.go, where the layout is described. It proves which frame is on the
// screen, and how late.

/** What a frame says about itself. */
export interface Mark {
  /** Capture time, in microseconds since 1970, UTC; exact until the year 2255. */
  timeMicros: number
  /** The camera's number. */
  camera: number
  /** The frame's number, from 0 at the camera's start. */
  frame: number
}

const columns = 40
const rows = 4
const sync = 2 // columns on either side
const dataColumns = columns - 2 * sync
const minContrast = 48

/**
 * Reads the mark from the pixels of a whole frame (RGBA, as getImageData returns them), drawn at any size
 * down to 80x45 and with any aspect. Returns null where there is no whole, undamaged pattern.
 */
export function decodePattern(data: Uint8ClampedArray, width: number, height: number): Mark | null {
  if (width < 2 * columns || height < 45 || data.length < 4 * width * height) return null
  const levels: number[] = []
  let white = 0
  let black = 0
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const level = cellMean(data, width, height, row, column)
      levels.push(level)
      if (!isSync(column)) continue
      if (isWhite(row, column)) white += level
      else black += level
    }
  }
  const syncs = rows * sync // of either colour
  if (white - black < minContrast * syncs) return null
  const threshold = (white + black) / (2 * syncs)

  const bytes = new Uint8Array((dataColumns * rows) / 8)
  let bit = 0
  for (const [index, level] of levels.entries()) {
    const column = index % columns
    const set = level > threshold
    if (isSync(column)) {
      if (set !== isWhite(Math.floor(index / columns), column)) return null
      continue
    }
    if (set) bytes[bit >> 3]! |= 0x80 >> (bit & 7)
    bit++
  }
  const view = new DataView(bytes.buffer)
  if (crc32(bytes.subarray(0, 14)) !== view.getUint32(14)) return null
  return {
    timeMicros: Number(view.getBigUint64(0)),
    camera: view.getUint16(8),
    frame: view.getUint32(10),
  }
}

const isSync = (column: number) => column < sync || column >= columns - sync
const isWhite = (row: number, column: number) => (row + column) % 2 === 0

/** The mean brightness of a cell's inner part, without a quarter at each side, where scaling blurs. */
function cellMean(data: Uint8ClampedArray, width: number, height: number, row: number, column: number): number {
  const x0 = Math.round((width * column) / columns)
  const x1 = Math.round((width * (column + 1)) / columns)
  const y0 = Math.round((height * row * 2) / 45)
  const y1 = Math.round((height * (row + 1) * 2) / 45)
  const mx = Math.floor((x1 - x0) / 4)
  const my = Math.floor((y1 - y0) / 4)
  let sum = 0
  for (let y = y0 + my; y < y1 - my; y++) {
    for (let x = x0 + mx; x < x1 - mx; x++) {
      const at = 4 * (y * width + x)
      sum += data[at]! + 2 * data[at + 1]! + data[at + 2]!
    }
  }
  return sum / 4 / ((y1 - y0 - 2 * my) * (x1 - x0 - 2 * mx))
}

/** CRC-32 as in IEEE 802.3, of few bytes. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  return ~crc >>> 0
}
