// CT instances for the crash tests, made from slices of the phantom: small ones that the gate refuses at once, and a chest
// at 55 % of its size, the smallest that is still analysed (800 ml of lung), so that an analysis takes seconds.

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { pulmo } from '../../packaging/appliance.mjs';
import { instanceOf } from '../integration/dimse.mjs';

const LONG = new Set(['OB', 'OW', 'OF', 'OD', 'SQ', 'UN', 'UT', 'UC', 'UR']);
const ROOT = '1.2.826.0.1.3680043.10.999.6';
const SIDE = 64;

export const digest = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** Elements of an Explicit VR Little Endian data set without sequences of undefined length: [tag, vr, value]. */
function* elements(dataset) {
  for (let at = 0; at < dataset.length;) {
    const vr = dataset.toString('latin1', at + 4, at + 6);
    const long = LONG.has(vr);
    const start = at + (long ? 12 : 8);
    const size = long ? dataset.readUInt32LE(at + 8) : dataset.readUInt16LE(at + 6);
    const tag = dataset.readUInt16LE(at).toString(16).padStart(4, '0') + dataset.readUInt16LE(at + 2).toString(16).padStart(4, '0');
    yield [tag, vr, dataset.subarray(start, start + size)];
    at = start + size;
  }
}

function element(tag, vr, value) {
  const long = LONG.has(vr);
  const padded = value.length % 2 ? Buffer.concat([value, Buffer.from(vr === 'UI' ? '\0' : ' ')]) : value;
  const head = Buffer.alloc(long ? 12 : 8);
  head.writeUInt16LE(parseInt(tag.slice(0, 4), 16), 0);
  head.writeUInt16LE(parseInt(tag.slice(4), 16), 2);
  head.write(vr, 4, 'latin1');
  if (long) head.writeUInt32LE(padded.length, 8);
  else head.writeUInt16LE(padded.length, 6);
  return Buffer.concat([head, padded]);
}

/** The data set with some values replaced: { tag: text, number (US) or function of the old text or bytes }. */
function edited(dataset, changes) {
  const parts = [];
  for (const [tag, vr, value] of elements(dataset)) {
    let change = changes[tag];
    if (typeof change === 'function') change = change(vr === 'OW' ? value : value.toString('latin1').trim());
    if (typeof change === 'number') change = Buffer.from([change & 255, change >> 8]);
    parts.push(element(tag, vr, change === undefined ? value : Buffer.from(change)));
  }
  return Buffer.concat(parts);
}

async function phantomSlices(folder, ...options) {
  mkdirSync(folder, { recursive: true });
  await pulmo('phantom', '--out', folder, ...options);
  return readdirSync(folder).sort().map((name) => instanceOf(readFileSync(path.join(folder, name)), ''));
}

function instance(template, dataset, sopInstance) {
  return { ...template, sopInstance, dataset, digest: digest(dataset) };
}

/** Makes instances of any study from one slice of the phantom. */
export class Slices {
  static async open(folder) {
    const slices = new Slices();
    [slices.template] = await phantomSlices(folder, '--slices', '2', '--nodules', '1');
    return slices;
  }

  /** `variant` changes some bytes of the same SOP instance: "pixels", or a text that becomes the patient's name. */
  make(study, number, variant) {
    const sopInstance = `${ROOT}.${study}.1.${number}`;
    const dataset = edited(this.template.dataset, {
      '00080018': sopInstance, '0020000d': `${ROOT}.${study}`, '0020000e': `${ROOT}.${study}.1`, '00200013': String(number),
      '00200032': `-100\\-100\\${-100 + 2 * number}`, '00280010': SIDE, '00280011': SIDE,
      ...(variant && variant !== 'pixels' && { '00100010': variant }),
      '7fe00010': (pixels) => {
        const cut = Buffer.from(pixels.subarray(0, 2 * SIDE * SIDE));
        cut.writeInt16LE(variant === 'pixels' ? 500 : number, 0);
        return cut;
      },
    });
    return instance(this.template, dataset, sopInstance);
  }

  study(study, count) {
    return Array.from({ length: count }, (_, index) => this.make(study, index + 1));
  }
}

/** Every `step`th pixel of every `step`th row. */
function thinned(pixels, side, step) {
  const cut = Buffer.alloc(pixels.length / step ** 2);
  for (let row = 0, to = 0; row < side; row += step)
    for (let column = 0; column < side; column += step, to += 2) pixels.copy(cut, to, 2 * (row * side + column), 2 * (row * side + column) + 2);
  return cut;
}

const scaled = (factor) => (text) => text.split('\\').map((value) => String(Number((factor * value).toFixed(4)))).join('\\');

/** The same images as another study of one series. */
export function asStudy(instances, study) {
  return instances.map((original, index) => {
    const sopInstance = `${ROOT}.${study}.1.${index + 1}`;
    return instance(original, edited(original.dataset,
      { '00080018': sopInstance, '0020000d': `${ROOT}.${study}`, '0020000e': `${ROOT}.${study}.1` }), sopInstance);
  });
}

/** A chest that is analysed; its lungs hold 840 ml. */
export async function chest(folder) {
  const [factor, step, side] = [0.55, 2, 512];
  const smaller = scaled(factor);
  const changes = {
    '00180050': smaller, '00180088': smaller, '00200032': smaller, '00201041': smaller, '00280030': scaled(factor * step),
    '00280010': side / step, '00280011': side / step, '7fe00010': (pixels) => thinned(pixels, side, step),
  };
  return (await phantomSlices(folder, '--slices', '34', '--spacing', '9')).map(
    (slice) => instance(slice, edited(slice.dataset, changes), slice.sopInstance));
}
