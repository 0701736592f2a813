// Short messages at the edge of the page. At most five are shown; the oldest leaves first.

export interface Toast {
  id: number
  kind: 'good' | 'bad' | 'info'
  text: string
  link?: { href: string; text: string }
}

const most = 5
const shownFor = { good: 6000, info: 6000, bad: 12000 } // milliseconds; bad news take longer to read

class Toasts {
  list = $state<Toast[]>([])
  private last = 0

  show(kind: Toast['kind'], text: string, link?: Toast['link']): void {
    if (this.list.some((t) => t.text === text)) return
    const id = ++this.last
    this.list = [...this.list, { id, kind, text, link }].slice(-most)
    setTimeout(() => this.drop(id), shownFor[kind])
  }

  drop(id: number): void {
    this.list = this.list.filter((t) => t.id !== id)
  }
}

export const toasts = new Toasts()
