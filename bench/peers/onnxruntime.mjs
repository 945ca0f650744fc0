// The detector in ONNX Runtime: node onnxruntime.mjs MODEL SIDE BATCH THREADS TILES. Prints one JSON document: seconds of
// the clock and of the processors a tile. Threads that have nothing to do sleep instead of spinning, for others run too.

import { performance } from 'node:perf_hooks';
import { createRequire } from 'node:module';

const [model, side, batch, threads, tiles] = [process.argv[2], ...process.argv.slice(3).map(Number)];
const ort = createRequire(new URL('../package.json', import.meta.url))('onnxruntime-node');
const session = await ort.InferenceSession.create(model, {
  graphOptimizationLevel: 'all',
  executionProviders: ['cpu'],
  executionMode: 'sequential',
  intraOpNumThreads: threads,
  interOpNumThreads: 1,
  extra: { session: { intra_op: { allow_spinning: '0' } } },
});
const data = new Float32Array(batch * side ** 3).map((_, n) => ((n * 2654435761) % 1024) / 1024);
const feeds = { [session.inputNames[0]]: new ort.Tensor('float32', data, [batch, 1, side, side, side]) };
await session.run(feeds);
const [cpu, start] = [process.cpuUsage(), performance.now()];
const runs = Math.ceil(tiles / batch);
for (let run = 0; run < runs; run++) await session.run(feeds);
const [used, wall] = [process.cpuUsage(cpu), performance.now() - start];
console.log(JSON.stringify({
  wall_s: wall / 1000 / runs / batch,
  processor_s: (used.user + used.system) / 1e6 / runs / batch,
}));
process.exit(0);
