// Analysis of one phantom study from files, with one thread and with all: time of each step and peak memory.

import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { pulmo } from '../packaging/appliance.mjs';

const folder = mkdtempSync(path.join(tmpdir(), 'pulmo-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
await pulmo('phantom', '--out', folder);
console.log('analysis of the phantom, ms              read resample   detect uncertainty segment   total   peak MiB');
for (const threads of new Set([1, cpus().length])) {
  const document = JSON.parse(await pulmo('analyze', folder, '--json', '--threads', String(threads)));
  const { read, resample, detect, uncertainty, segment = 0, total } = document.timings_ms;
  const figures = [[read, 6], [resample, 8], [detect, 8], [uncertainty, 11], [segment, 7], [total, 7]];
  console.log(`  ${`Pulmo, ${threads} thread${threads > 1 ? 's' : ''}`.padEnd(36)} ` +
    figures.map(([value, width]) => String(value).padStart(width)).join(' ') +
    String(Math.round(document.peak_rss_bytes / 1048576)).padStart(11));
}
