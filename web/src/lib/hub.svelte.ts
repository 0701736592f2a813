import { SvelteMap } from 'svelte/reactivity'
import { api, ask, Fault, socketAddress, wordsOf, type Camera, type HubEvent, type Lock, type Retrieval } from './api'
import type { Session, Site } from './api'
import { Backoff } from './backoff'
import { remember, type Report } from './progress'
import { standing, standingWords } from './standing'
import { now, parseTime, type Range } from './time'
import { toasts } from './toasts.svelte'

// What the page knows of the hub. One event connection keeps it up to date; whenever that connection
// is made anew, everything is asked for again.

export type TimelineListener = (camera: string, range: Range) => void

class Hub {
  session = $state<Session>()
  known = $state(false) // whether we asked who is logged in
  online = $state(false) // whether the event connection stands
  loaded = $state(false)
  sites = $state.raw<Site[]>([])
  cameras = $state.raw<Camera[]>([])
  retrievals = $state.raw<Retrieval[]>([])
  locks = $state.raw<Lock[]>([]) // evidence locks; empty for who may not see them
  clock = $state(now()) // ticks once a second, for texts such as "12 s ago"
  announcement = $state('') // read out by screen readers
  readonly reports = new SvelteMap<string, Report[]>() // by retrieval

  private socket?: WebSocket
  private retry = 0
  private readonly backoff = new Backoff()
  private readonly listeners = new Set<TimelineListener>()

  get operator(): boolean {
    return this.session?.role === 'operator' || this.session?.role === 'administrator'
  }

  get administrator(): boolean {
    return this.session?.role === 'administrator'
  }

  site(id: string): Site | undefined {
    return this.sites.find((s) => s.id === id)
  }

  camera(id: string): Camera | undefined {
    return this.cameras.find((c) => c.id === id)
  }

  /** Finds out who is logged in and starts following the hub if anyone is. */
  async begin(): Promise<void> {
    setInterval(() => (this.clock = now()), 1000)
    try {
      this.enter(await ask(api.GET('/api/v1/session')))
    } catch (err) {
      if (err instanceof Fault && err.code === 'offline') toasts.show('bad', err.message)
    }
    this.known = true
  }

  async login(user: string, password: string): Promise<void> {
    this.enter(await ask(api.POST('/api/v1/session', { body: { user, password } })))
  }

  async logout(): Promise<void> {
    await ask(api.DELETE('/api/v1/session')).catch(() => undefined)
    this.leave()
  }

  /** Forgets everything: the session is over. */
  leave(): void {
    clearTimeout(this.retry)
    this.session = undefined
    this.loaded = this.online = false
    this.sites = this.cameras = this.retrievals = this.locks = []
    this.reports.clear()
    this.socket?.close()
    this.socket = undefined
  }

  /** Calls back whenever a camera's time line changed; returns the function that stops it. */
  onTimeline(listener: TimelineListener): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  /** Shows what went wrong; leaves when the session ended. */
  failed(err: unknown): void {
    if (err instanceof Fault && err.code === 'unauthenticated') {
      this.leave()
      toasts.show('info', 'The session ended. Log in again.')
    } else {
      toasts.show('bad', wordsOf(err))
    }
  }

  private enter(session: Session): void {
    this.session = session
    this.connect()
  }

  private connect(): void {
    const socket = new WebSocket(socketAddress('/api/v1/events'))
    this.socket = socket
    socket.onmessage = (m) => this.take(JSON.parse(m.data as string) as HubEvent)
    socket.onclose = () => {
      if (this.socket !== socket) return
      this.online = false
      this.retry = window.setTimeout(() => this.reconnect(), this.backoff.next())
    }
  }

  private async reconnect(): Promise<void> {
    try {
      this.session = await ask(api.GET('/api/v1/session'))
    } catch (err) {
      if (err instanceof Fault && err.code === 'unauthenticated') return this.failed(err)
    }
    if (this.session) this.connect()
  }

  private take(event: HubEvent): void {
    if (event.type === 'ready' || event.type === 'reload') {
      this.backoff.reset()
      this.online = true
      void this.load()
    } else if (event.type === 'site' && event.site) {
      this.takeSite(event.site)
    } else if (event.type === 'cameras') {
      void this.loadCameras()
    } else if (event.type === 'locks') {
      this.loadLocks().catch((err: unknown) => this.failed(err))
    } else if (event.type === 'retrieval' && event.retrieval) {
      this.takeRetrieval(event.retrieval)
    } else if (event.type === 'timeline' && event.camera && event.from && event.to) {
      const range = { start: parseTime(event.from), end: parseTime(event.to) }
      for (const listener of this.listeners) listener(event.camera, range)
    }
  }

  private async load(): Promise<void> {
    try {
      const [sites, retrievals] = await Promise.all([
        ask(api.GET('/api/v1/sites')),
        ask(api.GET('/api/v1/retrievals')),
        this.loadCameras(),
        this.loadLocks(),
      ])
      this.sites = sites.sites
      this.retrievals = []
      for (const r of [...retrievals.retrievals].reverse()) this.takeRetrieval(r)
      this.loaded = true
      for (const listener of this.listeners) for (const c of this.cameras) listener(c.id, { start: 0, end: now() })
    } catch (err) {
      this.failed(err)
    }
  }

  private async loadCameras(): Promise<void> {
    this.cameras = (await ask(api.GET('/api/v1/cameras'))).cameras
  }

  private async loadLocks(): Promise<void> {
    if (this.operator) this.locks = (await ask(api.GET('/api/v1/locks'))).locks
  }

  private takeSite(site: Site): void {
    const before = this.site(site.id)
    if (before && standing(before) !== standing(site)) {
      this.announcement = `${site.id}: ${standingWords(standing(site)).toLowerCase()}.`
    }
    this.sites = [...this.sites.filter((s) => s.id !== site.id), site].sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  private takeRetrieval(r: Retrieval): void {
    const before = this.retrievals.find((x) => x.id === r.id)
    this.retrievals = before ? this.retrievals.map((x) => (x.id === r.id ? r : x)) : [r, ...this.retrievals]
    const report = { at: now(), share: r.share, bytes: r.bytes }
    this.reports.set(r.id, remember(this.reports.get(r.id) ?? [], report))
    if (before && before.state !== r.state && r.ended)
      this.announcement = `Retrieval of ${r.streams[0] ?? ''}: ${r.state}.`
  }

  /** Asks for the sites again, after an order that changes them. */
  async refreshSites(): Promise<void> {
    this.sites = (await ask(api.GET('/api/v1/sites'))).sites
  }

  /** Puts a lock just made in the list, ahead of the event that tells of it. */
  addLock(l: Lock): void {
    this.locks = [l, ...this.locks.filter((x) => x.id !== l.id)]
  }

  /** Puts an order just made in the list, ahead of the event that tells of it. */
  add(r: Retrieval): void {
    this.takeRetrieval(r)
  }
}

export const hub = new Hub()
