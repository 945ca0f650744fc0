// Replaces the weights of a model by random ones of the same spread, so that a test can show that findings come from
// what was learned: randomise.mjs MODEL.JSON FOLDER [SEED] writes FOLDER/model.json and its ONNX files.
//
// Walks the protobuf by hand (ONNX IR: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.dims = 1,
// data_type = 2, float_data = 4, raw_data = 9) and changes bytes in place, so that every length stays as it is.

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Fields of a protobuf message: [number, wire type, value or [start, end]]. */
function* fields(buffer, start, end) {
  let at = start;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = buffer[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < end) {
    const key = Number(varint());
    const wire = key & 7;
    if (wire === 0) yield [key >> 3, wire, varint()];
    else if (wire === 1) yield [key >> 3, wire, [at, (at += 8)]];
    else if (wire === 5) yield [key >> 3, wire, [at, (at += 4)]];
    else if (wire === 2) {
      const size = Number(varint());
      yield [key >> 3, wire, [at, at + size]];
      at += size;
    } else throw new Error(`wire type ${wire} at byte ${at}`);
  }
}

/** Normal deviates from a 32-bit generator (mulberry32, Box-Muller), so that a seed gives the same model again. */
function normal(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Same spread about zero; what is positive throughout (a variance, a scale) stays positive; single numbers stay. */
function scramble(buffer, start, end, next) {
  const count = (end - start) / 4;
  if (count < 2) return 0;
  const values = Array.from({ length: count }, (_, index) => buffer.readFloatLE(start + 4 * index));
  const spread = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / count);
  const positive = values.every((value) => value > 0);
  for (let index = 0; index < count; index++) {
    const value = next() * spread;
    buffer.writeFloatLE(positive ? Math.abs(value) + 1e-3 * spread : value, start + 4 * index);
  }
  return count;
}

export function randomiseGraph(buffer, seed) {
  const next = normal(seed);
  let changed = 0;
  for (const [modelField, , graph] of fields(buffer, 0, buffer.length)) {
    if (modelField !== 7) continue;
    for (const [graphField, , tensor] of fields(buffer, ...graph)) {
      if (graphField !== 5) continue;
      const parts = [...fields(buffer, ...tensor)];
      if (!parts.some(([field, , value]) => field === 2 && value === 1n)) continue; // FLOAT only
      for (const [field, wire, range] of parts)
        if ((field === 9 || field === 4) && wire === 2) changed += scramble(buffer, ...range, next);
    }
  }
  if (!changed) throw new Error('no weights were found');
  return changed;
}

export function randomiseModel(modelJson, folder, seed = 1) {
  const model = JSON.parse(readFileSync(modelJson, 'utf8'));
  mkdirSync(folder, { recursive: true });
  let changed = 0;
  for (const stage of [model.detector, model.candidate]) {
    const graph = readFileSync(path.join(path.dirname(modelJson), stage.file));
    changed += randomiseGraph(graph, seed);
    stage.sha256 = createHash('sha256').update(graph).digest('hex');
    writeFileSync(path.join(folder, stage.file), graph);
  }
  if (model.gate) // as it is: whether a study is judged at all does not depend on what is found in it
    writeFileSync(path.join(folder, model.gate.file), readFileSync(path.join(path.dirname(modelJson), model.gate.file)));
  writeFileSync(path.join(folder, 'model.json'), JSON.stringify(model, null, 1));
  return changed;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , modelJson, folder, seed] = process.argv;
  console.log(`${randomiseModel(modelJson, folder, Number(seed ?? 1))} weights replaced`);
}
