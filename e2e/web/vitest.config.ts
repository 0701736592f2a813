import { defineConfig } from 'vitest/config';

// One browser and one demo at a time: they measure delays.
export default defineConfig({
  test: { fileParallelism: false, testTimeout: 240_000, hookTimeout: 120_000, include: ['*.test.ts'] },
});
