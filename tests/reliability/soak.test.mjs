// The soak in small: some dozens of studies and a few kills. `make soak` is the long one.

import { test } from '../integration/scenario.mjs';
import { soak } from './soak-run.mjs';

await test('soak', (context) => soak(context, { studies: 60, minutes: 1, chests: 1, pause_ms: 400, every_s: 1 }));
