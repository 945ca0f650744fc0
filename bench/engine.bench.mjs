// The detector on tiles: Pulmo beside ONNX Runtime and PyTorch on the same ONNX file. Each peer's best batch and layout is
// looked for first; then all take turns, each time in a process of its own. Ratios are of one round; the figure is their
// median. With one thread by processor time, which a busy machine changes little; with all threads by the clock.
//
//   node bench/engine.bench.mjs [--rounds N] [--json]

import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import path from 'node:path';
import { root, pulmo } from '../packaging/appliance.mjs';

const json = process.argv.includes('--json');
const rounds = Number(process.argv[process.argv.indexOf('--rounds') + 1]) || 5;
const model = path.join(root, 'models', 'detector.onnx');
const side = JSON.parse(readFileSync(path.join(root, 'models', 'model.json'), 'utf8')).detector.tile;
const all = cpus().length;
const here = path.join(root, 'bench');

function install() {
  const [lock, installed] = ['package-lock.json', 'node_modules/.installed-lock.json'].map((name) => path.join(here, name));
  if (existsSync(installed) && readFileSync(installed).equals(readFileSync(lock))) return;
  execFileSync('npm', ['ci', '--no-audit', '--no-fund'], {
    cwd: here, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' },
  });
  copyFileSync(lock, installed);
}

const runs = {
  Pulmo: async (_, threads, tiles) => {
    const figures = JSON.parse(await pulmo('bench', 'engine', '--json', '--rounds', '1', '--tiles',
      String(Math.ceil(tiles / threads)), '--threads', String(threads)));
    return { wall_s: 1 / figures.tiles_per_s, processor_s: figures.processor_ms_a_tile / 1000, ...figures };
  },
  'ONNX Runtime': async ({ batch }, threads, tiles) => JSON.parse(execFileSync('node',
    [path.join(here, 'peers/onnxruntime.mjs'), model, side, batch, threads, tiles].map(String))),
  PyTorch: async ({ batch, layout }, threads, tiles) => JSON.parse(execFileSync('/usr/bin/python3',
    [path.join(here, 'peers/pytorch.py'), model, side, batch, threads, tiles, layout].map(String))),
};
const choices = {
  Pulmo: [{}],
  'ONNX Runtime': [1, 2].map((batch) => ({ batch })),
  // Without a batch PyTorch 1.13 takes a slow way for volumes, unless they are in the blocked layout.
  PyTorch: [[2, 'plain'], [2, 'channels_last'], [1, 'mkldnn'], [2, 'mkldnn']].map(([batch, layout]) => ({ batch, layout })),
};

async function choose(name) {
  let best = { time: Infinity };
  for (const choice of choices[name]) {
    const time = choices[name].length > 1 ? (await runs[name](choice, 1, 2)).processor_s : 0;
    if (time < best.time) best = { time, choice };
  }
  return best.choice;
}

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
const names = Object.keys(runs);

install();
const chosen = {};
for (const name of names) chosen[name] = await choose(name);
const one = [], many = [];
for (let round = 0; round < rounds; round++) {
  const [alone, together] = [{}, {}];
  for (let turn = 0; turn < names.length; turn++) {
    const name = names[(turn + round) % names.length];
    alone[name] = await runs[name](chosen[name], 1, 2);
    together[name] = await runs[name](chosen[name], all, 2 * all);
  }
  one.push(alone);
  many.push(together);
}
const result = names.map((name) => ({
  name,
  ...chosen[name],
  processor_ms_a_tile: 1000 * median(one.map((round) => round[name].processor_s)),
  clock_ms_a_tile: 1000 * median(many.map((round) => round[name].wall_s)),
  pulmo_faster_one_thread: median(one.map((round) => round[name].processor_s / round.Pulmo.processor_s)),
  pulmo_faster_all_threads: median(many.map((round) => round[name].wall_s / round.Pulmo.wall_s)),
}));
if (json) {
  console.log(JSON.stringify({ bench: 'engine peers', tile: side, threads: all, rounds, peers: result }));
} else {
  console.log(`detector, tiles of ${side}^3, fp32; medians of ${rounds} rounds, each peer in its best batch and layout`);
  console.log(`                                 1 thread, processor ms  Pulmo faster   ${all} threads, clock ms  Pulmo faster`);
  for (const row of result) {
    const how = row.batch ? `, batch ${row.batch}${row.layout ? `, ${row.layout}` : ''}` : '';
    console.log(`  ${(row.name + how).padEnd(38)} ${row.processor_ms_a_tile.toFixed(0).padStart(14)} ` +
      `${row.pulmo_faster_one_thread.toFixed(2).padStart(12)}x ${row.clock_ms_a_tile.toFixed(0).padStart(18)} ` +
      `${row.pulmo_faster_all_threads.toFixed(2).padStart(12)}x`);
  }
}
