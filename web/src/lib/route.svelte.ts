import { formatISO, parseTime, type Seconds } from './time'

// Where in the console the viewer is, as the address tells: it can be kept and sent to a colleague.

export type Route =
  | { page: 'live'; site?: string }
  | { page: 'camera'; camera: string; at?: Seconds }
  | { page: 'sites' }
  | { page: 'site'; site: string }
  | { page: 'retrievals' }
  | { page: 'locks' }

export function parseRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?')
  const [page, id] = path.split('/').map(decodeURIComponent)
  const params = new URLSearchParams(query)
  if (page === 'cameras' && id) {
    const at = parseTime(params.get('at') ?? '')
    return { page: 'camera', camera: id, at: Number.isFinite(at) ? at : undefined }
  }
  if (page === 'sites') return id ? { page: 'site', site: id } : { page: 'sites' }
  if (page === 'retrievals' || page === 'locks') return { page }
  return { page: 'live', site: params.get('site') ?? undefined }
}

export function href(route: Route): string {
  switch (route.page) {
    case 'camera': {
      const at = route.at === undefined ? '' : `?at=${formatISO(route.at)}`
      return `#/cameras/${encodeURIComponent(route.camera)}${at}`
    }
    case 'site':
      return `#/sites/${encodeURIComponent(route.site)}`
    case 'live':
      return route.site ? `#/?site=${encodeURIComponent(route.site)}` : '#/'
    default:
      return `#/${route.page}`
  }
}

class Router {
  current = $state<Route>(parseRoute(location.hash))

  constructor() {
    addEventListener('hashchange', () => (this.current = parseRoute(location.hash)))
  }
}

export const router = new Router()
