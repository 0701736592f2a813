import { describe, expect, it } from 'vitest'
import golden from '../../../internal/testcam/testdata/pattern.json'
import { decodePattern } from './pattern'

/** The golden picture's luma as RGBA, converted from limited range as a browser does. */
function picture(): Uint8ClampedArray {
  const luma = Uint8Array.from(atob(golden.luma), (c) => c.charCodeAt(0))
  const data = new Uint8ClampedArray(4 * luma.length)
  luma.forEach((y, i) => data.set([(y - 16) * (255 / 219), (y - 16) * (255 / 219), (y - 16) * (255 / 219), 255], 4 * i))
  return data
}

/** Draws the picture at another size, as drawImage does with smoothing: each pixel from its nearest four. */
function scale(data: Uint8ClampedArray, width: number, height: number): Uint8ClampedArray {
  const out = new Uint8ClampedArray(4 * width * height)
  const clamp = (v: number, max: number) => Math.min(Math.max(v, 0), max)
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const sx = clamp(((x + 0.5) * golden.width) / width - 0.5, golden.width - 1)
      const sy = clamp(((y + 0.5) * golden.height) / height - 0.5, golden.height - 1)
      const x0 = Math.floor(sx)
      const y0 = Math.floor(sy)
      for (let c = 0; c < 4; c++) {
        const at = (i: number, j: number) =>
          data[4 * (Math.min(y0 + j, golden.height - 1) * golden.width + Math.min(x0 + i, golden.width - 1)) + c]!
        const top = at(0, 0) * (1 - sx + x0) + at(1, 0) * (sx - x0)
        const bottom = at(0, 1) * (1 - sx + x0) + at(1, 1) * (sx - x0)
        out[4 * (y * width + x) + c] = top * (1 - sy + y0) + bottom * (sy - y0)
      }
    }
  }
  return out
}

describe('decodePattern', () => {
  const mark = { timeMicros: golden.timeMicros, camera: golden.camera, frame: golden.frame }

  it.each([
    ['as it is', golden.width, golden.height],
    ['half', golden.width / 2, golden.height / 2],
    ['an odd size', 411, 231],
    ['a tile of the grid', 200, 112],
    ['the smallest', 80, 45],
    ['enlarged', 512, 288],
    ['distorted', 300, 300],
  ])('reads the picture: %s', (_, width, height) => {
    expect(decodePattern(scale(picture(), width, height), width, height)).toEqual(mark)
  })

  it('bears noise and low contrast', () => {
    const data = picture().map((v, i) => (i % 4 === 3 ? v : 60 + v * 0.4 + ((i * 7919) % 31) - 15))
    expect(decodePattern(data, golden.width, golden.height)).toEqual(mark)
  })

  it('refuses a picture without a pattern', () => {
    expect(decodePattern(new Uint8ClampedArray(4 * 640 * 360), 640, 360)).toBeNull()
  })

  it('refuses a pattern with one wrong cell', () => {
    const data = picture()
    const cell = golden.width / 40
    for (let y = 0; y < cell; y++) {
      for (let x = 20 * cell; x < 21 * cell; x++) {
        const at = 4 * (y * golden.width + x)
        data.fill(255 - data[at]!, at, at + 3)
      }
    }
    expect(decodePattern(data, golden.width, golden.height)).toBeNull()
  })

  it('refuses sizes that do not match the data', () => {
    expect(decodePattern(picture(), 79, 45)).toBeNull()
    expect(decodePattern(new Uint8ClampedArray(16), 640, 360)).toBeNull()
  })
})
