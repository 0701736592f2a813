/** Whether a site is the other one, or behind it: `region.berlin` is at `region`. */
export function at(site: string, other: string): boolean {
  return site === other || site.startsWith(`${other}.`)
}
