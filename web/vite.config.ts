import { svelte } from '@sveltejs/vite-plugin-svelte'
import { loadEnv } from 'vite'
import { defineConfig } from 'vitest/config'

export default defineConfig(({ mode }) => {
  // During development `npm run dev` serves the page and passes the API on to a running hub.
  const hub = loadEnv(mode, '.', 'BRANCHLINE_').BRANCHLINE_HUB ?? 'http://127.0.0.1:8480'
  return {
    plugins: [svelte()],
    build: {
      target: 'es2022',
      emptyOutDir: true, // public/.keep puts dist/.keep back
      assetsInlineLimit: 0, // no data: addresses, so that the content policy stays "self"
      modulePreload: { polyfill: false },
    },
    server: { proxy: { '/api': { target: hub, ws: true }, '/healthz': hub } },
    test: { environment: 'node', include: ['src/**/*.test.ts'] },
  }
})
