// Peers that do what no peer should: silent ones, ones that drip a byte now and then, ones that never read, ones that hang
// up in the middle. Each keeps its connection open for as long as the appliance lets it.

import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { Duplex } from 'node:stream';
import tls from 'node:tls';
import { CT_IMAGE_STORAGE, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Peer, VERIFICATION, associateRequest, pdu } from '../integration/dimse.mjs';

const DRIP_MS = 100;
const HOST = '127.0.0.1';
const CONTEXTS = [[CT_IMAGE_STORAGE, EXPLICIT_LITTLE]];

/** The head of a PDU that promises `length` bytes. */
function promise(type, length) {
  const head = Buffer.from([type, 0, 0, 0, 0, 0]);
  head.writeUInt32BE(length, 2);
  return head;
}

const request = () => associateRequest('PULMO', 'OVERLOAD', CONTEXTS);
/** A fragment of a data set that says of itself that more follows. */
const fragment = pdu(4, Buffer.concat([Buffer.from([0, 0, 0, 102, 1, 0]), Buffer.alloc(100)]));

/** [what is sent at once, what is then dripped]; the second null: silence. */
export const DICOM_ATTACKS = {
  'half-open, never a byte': () => [Buffer.alloc(0), null],
  'garbage': () => [randomBytes(4096), null],
  'a request announced and dripped': () => [promise(1, 100000), Buffer.alloc(1)],
  'a request of 4 GiB': () => [promise(1, 0xFFFFFFFF), Buffer.alloc(1)],
  'silent after A-ASSOCIATE-RQ': () => [request(), null],
  'data announced and dripped': () => [Buffer.concat([request(), promise(4, 16384)]), Buffer.alloc(1)],
  'data of 4 GiB': () => [Buffer.concat([request(), promise(4, 0xFFFFFFFF)]), Buffer.alloc(1)],
  'fragments that never end': () => [request(), fragment],
};

function connect(port, from) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: HOST, localAddress: from, noDelay: true });
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
  });
}

/** Holds a connection: resolves to how long the other side let it, in ms. */
async function hold(socket, first, drip, write = (bytes) => socket.write(bytes)) {
  const began = Date.now();
  const closed = new Promise((resolve) => { for (const event of ['close', 'end', 'error']) socket.once(event, resolve); });
  socket.on('error', () => {});
  socket.resume();
  if (first.length) write(first);
  const timer = drip && setInterval(() => { if (socket.writable) write(drip); }, DRIP_MS);
  await closed;
  clearInterval(timer);
  socket.destroy();
  return Date.now() - began;
}

export async function attackDicom(port, kind, from) {
  return hold(await connect(port, from), ...DICOM_ATTACKS[kind]());
}

/** TLS over a socket whose raw bytes can be written beside it. */
async function secure(socket) {
  const raw = new Duplex({
    read() {},
    write(chunk, encoding, done) { socket.write(chunk, done); },
  });
  socket.on('data', (chunk) => raw.push(chunk));
  socket.on('close', () => raw.push(null));
  const stream = tls.connect({ socket: raw, rejectUnauthorized: false });
  stream.on('error', () => {});
  await new Promise((resolve, reject) => {
    stream.once('secureConnect', resolve);
    socket.once('close', () => reject(new Error('closed in the handshake')));
  });
  return stream;
}

/** The first bytes of a TLS client. */
function clientHello() {
  return new Promise((resolve) => {
    const catcher = new Duplex({ read() {}, write(chunk, encoding, done) { resolve(chunk); done(); } });
    tls.connect({ socket: catcher, rejectUnauthorized: false }).on('error', () => {});
  });
}

const RECORD = Buffer.from([23, 3, 3, 64, 0]); // the head of one of 16 KiB
const GET = 'GET /viewer.js HTTP/1.1\r\nHost: pulmo\r\n\r\n';
const POST = 'POST /api/login HTTP/1.1\r\nHost: pulmo\r\nX-Pulmo: 1\r\nContent-Type: application/json\r\n';

async function dripped(socket, head) {
  const stream = await secure(socket);
  return hold(socket, Buffer.from(head), Buffer.from('a'), (bytes) => stream.write(bytes));
}

export const HTTPS_ATTACKS = {
  'no handshake': (socket) => hold(socket, Buffer.alloc(0), null),
  'a handshake that stalls': async (socket) => hold(socket, (await clientHello()).subarray(0, 100), null),
  'a handshake dripped': async (socket) => hold(socket, (await clientHello()).subarray(0, 6), Buffer.from([0])),
  'silent after the handshake': async (socket) => { await secure(socket); return hold(socket, Buffer.alloc(0), null); },
  'headers dripped': (socket) => dripped(socket, 'GET / HTTP/1.1\r\nHost: pulmo\r\nX-Slow: '),
  'a body dripped': (socket) => dripped(socket, `${POST}Content-Length: 30000\r\n\r\n{`),
  'chunks dripped': (socket) => dripped(socket, `${POST}Transfer-Encoding: chunked\r\n\r\n1000\r\n`),
  'answers never read': async (socket) => {
    const stream = await secure(socket);
    stream.write(GET.repeat(50));
    await new Promise((resolve) => { socket.once('data', resolve); });
    const began = Date.now();
    const closed = new Promise((resolve) => { socket.once('close', resolve); });
    socket.pause();
    socket.write(RECORD);
    const timer = setInterval(() => socket.write(Buffer.alloc(1)), DRIP_MS); // what is unread hides the end; a write does not
    await closed;
    clearInterval(timer);
    return Date.now() - began;
  },
  'records dripped after an answer': async (socket) => {
    const stream = await secure(socket);
    stream.write('GET / HTTP/1.1\r\nHost: pulmo\r\n\r\n');
    await new Promise((resolve) => { stream.once('data', resolve); });
    return hold(socket, RECORD, Buffer.alloc(1));
  },
};

export async function attackHttps(port, kind, from) {
  return HTTPS_ATTACKS[kind](await connect(port, from));
}

const ABORTS = [
  async () => {}, // before a byte
  async (peer) => peer.write(request().subarray(0, 50)),
  async (peer) => peer.write(request()),
  async (peer) => peer.associate('PULMO', 'OVERLOAD', CONTEXTS),
  async (peer) => { await peer.associate('PULMO', 'OVERLOAD', [[VERIFICATION, IMPLICIT_LITTLE]]); await peer.echo(); },
  async (peer) => { await peer.associate('PULMO', 'OVERLOAD', CONTEXTS); peer.write(fragment.subarray(0, 60)); },
  async (peer) => { // in the middle of an instance
    await peer.associate('PULMO', 'OVERLOAD', CONTEXTS);
    peer.beginStore(CT_IMAGE_STORAGE, '1.2.3');
    peer.write(fragment);
  },
  async (peer) => { await peer.associate('PULMO', 'OVERLOAD', CONTEXTS); peer.write(pdu(7, Buffer.alloc(4))); }, // A-ABORT
];

const ABORTS_HTTPS = [
  async () => {},
  async (socket) => socket.write((await clientHello()).subarray(0, 100)),
  async (socket) => { await secure(socket); },
  async (socket) => (await secure(socket)).write('GET / HT'),
  async (socket) => (await secure(socket)).write(GET), // its answer is of megabytes
  async (socket) => { // between two requests
    const stream = await secure(socket);
    stream.write('GET / HTTP/1.1\r\nHost: pulmo\r\n\r\n');
    await new Promise((resolve) => { stream.once('data', resolve); });
  },
];

async function abortDicom(port, from, kind) {
  const peer = await Peer.connect(port, from);
  await ABORTS[kind % ABORTS.length](peer).catch(() => {});
  peer.socket.resetAndDestroy();
}

async function abortHttps(port, from, kind) {
  const socket = await connect(port, from);
  socket.on('error', () => {});
  await ABORTS_HTTPS[kind % ABORTS_HTTPS.length](socket).catch(() => {});
  socket.resetAndDestroy();
}

/** Begins `count` associations or HTTPS connections, `together` at one time, and hangs up on each with a reset at another
 *  moment. */
export async function abortMany({ protocol, port, count, together, from }) {
  let next = 0;
  const one = async () => { while (next < count) await (protocol === 'dicom' ? abortDicom : abortHttps)(port, from, next++); };
  await Promise.all(Array.from({ length: together }, one));
}
