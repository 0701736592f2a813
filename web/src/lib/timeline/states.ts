import type { SpanState } from '../api'

// How each state of footage looks: a colour, and a pattern and a height that tell it apart without one.

export interface Look {
  name: string
  meaning: string
  colour: string // custom property of the style sheet
  top: number // where in the lane it begins, as a share of the lane's height
  pattern: 'solid' | 'hatch' | 'stripes' | 'dots' | 'cross' | 'none'
}

export const states: readonly SpanState[] = ['held', 'edge', 'coming', 'wanted', 'gap', 'unknown']

export function lookOf(state: SpanState): Look {
  switch (state) {
    case 'held':
      return { name: 'held', meaning: 'at the centre', colour: '--held', top: 0, pattern: 'solid' }
    case 'edge':
      return { name: 'edge', meaning: 'at the branch only', colour: '--edge', top: 0.42, pattern: 'hatch' }
    case 'coming':
      return { name: 'coming', meaning: 'in transfer', colour: '--coming', top: 0, pattern: 'stripes' }
    case 'wanted':
      return { name: 'wanted', meaning: 'queued', colour: '--wanted', top: 0.42, pattern: 'dots' }
    case 'gap':
      return { name: 'gap', meaning: 'nothing recorded', colour: '--gap', top: 0.7, pattern: 'cross' }
    default:
      return { name: 'unknown', meaning: 'never heard of', colour: '--unknown', top: 0.86, pattern: 'none' }
  }
}
