// Reception: instances acknowledged a second by Pulmo, Orthanc and DCMTK's storescp, and the floor of the disk
// (`pulmo bench ingest`; docs/PERFORMANCE.md says how it measures).

import { pulmo } from '../packaging/appliance.mjs';

process.stdout.write(await pulmo('bench', 'ingest'));
