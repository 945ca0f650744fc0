// A PACS for the tests: Debian's Orthanc on free ports with a folder of its own.

import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { freePort, sleep, until } from '../../packaging/appliance.mjs';

const program = process.env.ORTHANC ?? ['/usr/sbin/Orthanc', '/usr/bin/Orthanc'].find(existsSync);

function request(port, method, target, body) {
  return new Promise((resolve, reject) => {
    const call = http.request({ host: '127.0.0.1', port, method, path: target }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => resolve({ status: response.statusCode, body: Buffer.concat(chunks) }));
    });
    call.on('error', reject);
    call.end(body);
  });
}

export class Orthanc {
  /** modalities: { name: { aet, port } }. Ports are chosen once, so that a restart comes back where it was. */
  static async create(folder, modalities) {
    if (!program) return null;
    const orthanc = new Orthanc();
    orthanc.folder = folder;
    orthanc.dicomPort = await freePort();
    orthanc.httpPort = await freePort();
    mkdirSync(path.join(folder, 'storage'), { recursive: true });
    orthanc.configPath = path.join(folder, 'orthanc.json');
    writeFileSync(orthanc.configPath, JSON.stringify({
      Name: 'Pulmo test', StorageDirectory: path.join(folder, 'storage'), IndexDirectory: path.join(folder, 'storage'),
      Plugins: [], HttpPort: orthanc.httpPort, RemoteAccessAllowed: false, AuthenticationEnabled: false,
      DicomAet: 'ORTHANC', DicomPort: orthanc.dicomPort, DicomCheckCalledAet: true, DicomAlwaysAllowStore: true,
      DicomModalities: Object.fromEntries(Object.entries(modalities).map(
        ([name, { aet, port }]) => [name, { AET: aet, Host: '127.0.0.1', Port: port }])),
      SynchronousCMove: true, StableAge: 1, JobsHistorySize: 100, ConcurrentJobs: 2, OverwriteInstances: false,
    }, null, 1));
    await orthanc.start();
    return orthanc;
  }

  async start() {
    const log = openSync(path.join(this.folder, 'orthanc.log'), 'a');
    // TCP_NODELAY is DCMTK's switch: without it every instance stalls for about 40 ms
    this.child = spawn(program, [this.configPath], { stdio: ['ignore', log, log], env: { ...process.env, TCP_NODELAY: '1' } });
    closeSync(log);
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    let alive = true;
    this.ended.then(() => { alive = false; });
    // HTTP comes up last, and only an answer shows that it is Orthanc who listens.
    await until('Orthanc does not answer', 60, async () => {
      if (!alive) throw new Error(`Orthanc ended: ${readFileSync(path.join(this.folder, 'orthanc.log'), 'utf8').slice(-800)}`);
      return request(this.httpPort, 'GET', '/system').then(({ status }) => status === 200, () => false);
    });
  }

  async stop() {
    const { child, ended } = this; // of this run: start() makes new ones, which the time-out must not touch
    child.kill('SIGTERM');
    if ((await Promise.race([ended.then(() => 'ended'), sleep(15000)])) !== 'ended') child.kill('SIGKILL');
    await ended;
  }

  /** While it is stopped: another DICOM port from the next start on. */
  async move() {
    this.dicomPort = await freePort();
    const config = JSON.parse(readFileSync(this.configPath, 'utf8'));
    writeFileSync(this.configPath, JSON.stringify({ ...config, DicomPort: this.dicomPort }, null, 1));
  }

  async get(target) {
    const answer = await request(this.httpPort, 'GET', target);
    if (answer.status !== 200) throw new Error(`Orthanc: GET ${target}: ${answer.status}`);
    return JSON.parse(answer.body);
  }

  /** The bytes of a Part 10 file. */
  async file(instance) {
    return (await request(this.httpPort, 'GET', `/instances/${instance}/file`)).body;
  }

  async post(target, body) {
    const answer = await request(this.httpPort, 'POST', target, body);
    if (answer.status !== 200) throw new Error(`Orthanc: POST ${target}: ${answer.status} ${answer.body.toString().slice(0, 300)}`);
    return JSON.parse(answer.body);
  }

  async remove(target) {
    const answer = await request(this.httpPort, 'DELETE', target);
    if (answer.status !== 200) throw new Error(`Orthanc: DELETE ${target}: ${answer.status}`);
  }

  upload(part10) { return this.post('/instances', part10); }

  /** C-STOREs a study to a modality; resolves when the last instance was acknowledged. */
  send(modality, study) {
    return this.post(`/modalities/${modality}/store`, JSON.stringify({ Resources: [study], Synchronous: true, Timeout: 600 }));
  }

  /** [{ id, modality, uid, tags }] of the instances of a study that are no images of the source. */
  async results(study) {
    const found = [];
    for (const series of await this.get(`/studies/${study}/series`)) {
      if (series.MainDicomTags.Modality === 'CT') continue;
      for (const id of series.Instances) {
        const tags = await this.get(`/instances/${id}/simplified-tags`);
        found.push({ id, modality: tags.Modality, uid: tags.SOPInstanceUID, tags });
      }
    }
    return found;
  }
}
