// The soak in small: some dozens of studies and a few kills. No study is analysed to its end here (the gate refuses
// small ones at once), which takes a busy machine minutes. `make soak` is the long one.

import { existsSync } from 'node:fs';
import { test } from '../integration/scenario.mjs';
import { soak } from './soak-run.mjs';

if (existsSync('/dev/shm')) process.env.TMPDIR = '/dev/shm'; // a SIGKILL leaves the same files on any file system
await test('soak', (context) => soak(context, { studies: 40, minutes: 1, chests: 0, pause_ms: 800, every_s: 2 }));
