import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium, type Browser, type Page } from 'playwright-core'
import { decodePattern, type Mark } from '../../web/src/lib/pattern'

/** What `branchline demo --json` prints when it is ready. */
export interface Demo {
  http: string
  user: string
  password: string
  process: ChildProcess
}

/** Starts the demonstration: the real binary with a hub, two sites and four cameras. */
export async function startDemo(): Promise<Demo> {
  const binary = process.env.BRANCHLINE
  if (!binary || !existsSync(binary)) throw new Error('BRANCHLINE names no binary: run make test-browser')
  const child = spawn(binary, ['demo', '--http', '127.0.0.1:0', '--json'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })
  for await (const line of lines) return { ...JSON.parse(line), process: child }
  throw new Error(`the demo ended at once with ${child.exitCode}`)
}

/** Ends the demonstration and waits for it. */
export async function stopDemo(demo: Demo): Promise<number | null> {
  if (demo.process.exitCode !== null) return demo.process.exitCode
  const ended = new Promise<number | null>((done) => demo.process.once('exit', (code) => done(code)))
  demo.process.kill('SIGTERM')
  return ended
}

/** A fresh Chromium of the system, with a profile of its own. */
export async function openBrowser(): Promise<{ browser: Browser; close: () => Promise<void> }> {
  const path = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => existsSync(p))
  if (!path) throw new Error('no Chromium: apt-get install chromium')
  const profile = mkdtempSync(join(tmpdir(), 'branchline-chromium-'))
  const browser = await chromium.launch({
    executablePath: path,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required',
      `--crash-dumps-dir=${profile}`],
  })
  return { browser, close: async () => { await browser.close(); rmSync(profile, { recursive: true, force: true }) } }
}

/** Saves what a person would see, for people to look at. */
export async function screenshot(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(process.env.ARTEFACTS ?? 'artefacts', `${name}.png`) })
}

/** A frame that was on the screen. */
export interface Seen {
  mark: Mark | null
  shownAt: number // milliseconds since 1970, when the browser presented it
  currentTime: number // the media element's, seconds since 1970
}

/** Reads the marks of the next frames that a video presents. */
export async function seeFrames(page: Page, selector: string, count: number): Promise<Seen[]> {
  const raw = await page.locator(selector).first().evaluate(async (element, count) => {
    const video = element as HTMLVideoElement
    const canvas = document.createElement('canvas')
    canvas.width = 160
    canvas.height = 90
    const context = canvas.getContext('2d', { willReadFrequently: true })!
    const seen: { pixels: string; shownAt: number; currentTime: number }[] = []
    while (seen.length < count) {
      const mediaTime = await new Promise<number>((done, fail) => {
        const timer = setTimeout(() => fail(new Error(`no frame in 15 s after ${seen.length}: time ${video.currentTime}, `
          + `ready ${video.readyState}, paused ${video.paused}, error ${video.error?.message}`)), 15_000)
        video.requestVideoFrameCallback((_, frame) => { clearTimeout(timer); done(frame.mediaTime) })
      })
      const shownAt = performance.timeOrigin + performance.now()
      context.drawImage(video, 0, 0, 160, 90)
      const bytes = context.getImageData(0, 0, 160, 90).data
      let text = ''
      for (const b of bytes) text += String.fromCharCode(b)
      seen.push({ pixels: btoa(text), shownAt, currentTime: mediaTime })
    }
    return seen
  }, count)
  return raw.map((r) => ({
    mark: decodePattern(new Uint8ClampedArray(Buffer.from(r.pixels, 'base64')), 160, 90),
    shownAt: r.shownAt, currentTime: r.currentTime,
  }))
}

/** The middle of the values. */
export function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!
}
