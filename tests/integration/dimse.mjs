// A DICOM peer that sends whatever bytes it is given: C-ECHO and C-STORE over a socket, PS3.7 and PS3.8, no checks.

import net from 'node:net';

export const VERIFICATION = '1.2.840.10008.1.1';
export const CT_IMAGE_STORAGE = '1.2.840.10008.5.1.4.1.1.2';
export const STORAGE_COMMITMENT = '1.2.840.10008.1.20.1';
export const EXPLICIT_LITTLE = '1.2.840.10008.1.2.1';
export const IMPLICIT_LITTLE = '1.2.840.10008.1.2';
const PDV_BYTES = 16000;

/** An item of a PDU: type, reserved byte, 16-bit length (PS3.8 9.3.2). */
function item(type, ...content) {
  const body = Buffer.concat(content);
  const head = Buffer.from([type, 0, body.length >> 8, body.length & 255]);
  return Buffer.concat([head, body]);
}

/** A PDU: type, reserved byte, 32-bit length (PS3.8 9.3.1). */
export function pdu(type, body) {
  const head = Buffer.alloc(6);
  head[0] = type;
  head.writeUInt32BE(body.length, 2);
  return Buffer.concat([head, body]);
}

export function associateRequest(called, calling, contexts) {
  const head = Buffer.alloc(68);
  head.writeUInt16BE(1, 0);
  head.write(called.padEnd(16), 4, 'latin1');
  head.write(calling.padEnd(16), 20, 'latin1');
  const presentation = contexts.map(([sopClass, syntax], index) => item(0x20, Buffer.from([2 * index + 1, 0, 0, 0]),
    item(0x30, Buffer.from(sopClass)), item(0x40, Buffer.from(syntax))));
  const user = item(0x50, item(0x51, Buffer.from([0, 0, 0x40, 0])), item(0x52, Buffer.from('1.2.826.0.1.3680043.10.999')));
  return pdu(1, Buffer.concat([head, item(0x10, Buffer.from('1.2.840.10008.3.1.1.1')), ...presentation, user]));
}

/** A command set in Implicit VR Little Endian: [[element, value]], value a UID or a 16-bit number (PS3.7 6.3.1). */
function command(elements) {
  const encoded = elements.map(([element, value]) => {
    const text = typeof value === 'string' ? Buffer.from(value.length % 2 ? `${value}\0` : value) : Buffer.alloc(2);
    if (typeof value === 'number') text.writeUInt16LE(value);
    const head = Buffer.alloc(8);
    head.writeUInt16LE(element, 2);
    head.writeUInt32LE(text.length, 4);
    return Buffer.concat([head, text]);
  });
  const length = Buffer.alloc(12);
  length.writeUInt32LE(4, 4);
  length.writeUInt32LE(Buffer.concat(encoded).length, 8);
  return Buffer.concat([length, ...encoded]);
}

function responseStatus(set) {
  for (let at = 0; at + 8 <= set.length;) {
    const size = set.readUInt32LE(at + 4);
    if (set.readUInt16LE(at) === 0 && set.readUInt16LE(at + 2) === 0x0900) return set.readUInt16LE(at + 8);
    at += 8 + size;
  }
  return null;
}

export class Peer {
  constructor(socket) {
    this.socket = socket;
    this.received = Buffer.alloc(0);
    this.waiting = null;
    this.closed = false;
    socket.on('data', (chunk) => { this.received = Buffer.concat([this.received, chunk]); this.waiting?.(); });
    for (const event of ['close', 'end', 'error']) socket.on(event, () => { this.closed = true; this.waiting?.(); });
  }

  /** from: the address of this machine (127.0.0.0/8) that the other side is to see. */
  static async connect(port, from = '127.0.0.1') {
    const socket = net.connect({ port, host: '127.0.0.1', localAddress: from, noDelay: true });
    await new Promise((resolve, reject) => { socket.once('connect', resolve); socket.once('error', reject); });
    return new Peer(socket);
  }

  write(bytes) { if (!this.closed) this.socket.write(bytes); }

  /** The next PDU as { type, body }, or null when the other side closed; rejects after `seconds` of silence. */
  async next(seconds = 60) {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
      if (this.received.length >= 6 && this.received.length >= 6 + this.received.readUInt32BE(2)) {
        const size = 6 + this.received.readUInt32BE(2);
        const [type, body] = [this.received[0], this.received.subarray(6, size)];
        this.received = this.received.subarray(size);
        return { type, body };
      }
      if (this.closed) return null;
      if (Date.now() > deadline) throw new Error(`no answer within ${seconds} s`);
      await new Promise((resolve) => { this.waiting = resolve; setTimeout(resolve, 500).unref(); });
    }
  }

  /** "accepted", "context refused", "rejected" or "closed". */
  async associate(called, calling, contexts) {
    this.write(associateRequest(called, calling, contexts));
    const answer = await this.next();
    if (!answer || answer.type === 7) return 'closed';
    if (answer.type === 3) return 'rejected';
    for (let at = 68; at + 4 <= answer.body.length; at += 4 + answer.body.readUInt16BE(at + 2))
      if (answer.body[at] === 0x21 && answer.body[at + 6] === 0) return 'accepted';
    return 'context refused';
  }

  message(bytes, isCommand) {
    for (let at = 0; at === 0 || at < bytes.length; at += PDV_BYTES) {
      const part = bytes.subarray(at, at + PDV_BYTES);
      const head = Buffer.alloc(6);
      head.writeUInt32BE(part.length + 2);
      head[4] = 1;
      head[5] = (isCommand ? 1 : 0) | (at + PDV_BYTES >= bytes.length ? 2 : 0);
      this.write(pdu(4, Buffer.concat([head, part])));
    }
  }

  /** The DIMSE status of the answer, or null when there was an abort or a close instead. */
  async status() {
    const answer = await this.next();
    return answer?.type === 4 ? responseStatus(answer.body.subarray(6)) : null;
  }

  echo() {
    this.message(command([[0x0002, VERIFICATION], [0x0100, 0x0030], [0x0110, 1], [0x0800, 0x0101]]), true);
    return this.status();
  }

  /** The command of a C-STORE, without its data set. */
  beginStore(sopClass, sopInstance) {
    this.message(command([[0x0002, sopClass], [0x0100, 0x0001], [0x0110, 1], [0x0700, 0], [0x0800, 0],
      [0x1000, sopInstance]]), true);
  }

  store(sopClass, sopInstance, dataset) {
    this.beginStore(sopClass, sopInstance);
    this.message(dataset, false);
    return this.status();
  }

  /** A report on a Storage Commitment (N-EVENT-REPORT, PS3.4 J.3.3), event type 1 = all stored, 2 = failures exist. */
  report(type, dataset) {
    this.message(command([[0x0002, STORAGE_COMMITMENT], [0x0100, 0x0100], [0x0110, 1], [0x0800, 0],
      [0x1000, `${STORAGE_COMMITMENT}.1`], [0x1002, type]]), true);
    this.message(dataset, false);
    return this.status();
  }

  async release() {
    this.write(pdu(5, Buffer.alloc(4)));
    await this.next(10).catch(() => null);
    this.socket.destroy();
  }

  abort() { this.socket.destroy(); }
}

/** C-ECHO in an association of its own: true when it was answered with success. */
export async function echo(port, called, calling, from) {
  const peer = await Peer.connect(port, from);
  const good = (await peer.associate(called, calling, [[VERIFICATION, IMPLICIT_LITTLE]])) === 'accepted' && (await peer.echo()) === 0;
  await peer.release();
  return good;
}

/** Sends bytes as one instance in an association of its own; resolves to the status (a number) or what happened instead. */
export async function store(port, called, calling, { sopClass, sopInstance, syntax, dataset }) {
  const peer = await Peer.connect(port);
  const association = await peer.associate(called, calling, [[sopClass, syntax]]);
  if (association !== 'accepted') {
    peer.abort();
    return association;
  }
  const status = await peer.store(sopClass, sopInstance, dataset);
  await peer.release();
  return status ?? 'aborted';
}

/** What a file would be as an instance: from its meta information where it has one, a CT in plain encoding otherwise. */
export function instanceOf(file, sopInstance) {
  const plain = { sopClass: CT_IMAGE_STORAGE, sopInstance, syntax: EXPLICIT_LITTLE, dataset: file };
  if (file.toString('latin1', 128, 132) !== 'DICM') return plain;
  const meta = { ...plain, dataset: file.subarray(132) };
  let at = 132;
  while (at + 8 <= file.length && file.readUInt16LE(at) === 2) {
    const element = file.readUInt16LE(at + 2);
    const long = ['OB', 'OW', 'UN', 'SQ', 'UT', 'OF'].includes(file.toString('latin1', at + 4, at + 6));
    if (long && at + 12 > file.length) break;
    const size = long ? file.readUInt32LE(at + 8) : file.readUInt16LE(at + 6);
    const from = at + (long ? 12 : 8);
    const text = file.toString('latin1', from, Math.min(from + size, from + 64)).replace(/[\0 ]+$/, '');
    if (element === 0x0002 && text) meta.sopClass = text;
    if (element === 0x0003 && text) meta.sopInstance = text;
    if (element === 0x0010 && text) meta.syntax = text;
    at = from + size;
    meta.dataset = file.subarray(Math.min(at, file.length));
  }
  return meta;
}
