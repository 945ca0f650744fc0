// The long soak: `make soak`.
//
//   SOAK_STUDIES=2000 SOAK_MINUTES=60 SOAK_CHESTS=20 SOAK_PAUSE_MS=200 PULMO_CRASH_SEED=7 node tests/reliability/soak.mjs

import { test } from '../integration/scenario.mjs';
import { soak } from './soak-run.mjs';

const number = (name, otherwise) => Number(process.env[name] ?? otherwise);
await test('soak', (context) => soak(context, {
  studies: number('SOAK_STUDIES', 2000), minutes: number('SOAK_MINUTES', 60), chests: number('SOAK_CHESTS', 20),
  pause_ms: number('SOAK_PAUSE_MS', 200), every_s: 5,
}));
