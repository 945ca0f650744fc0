PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE artifact (
    result_id INTEGER NOT NULL REFERENCES result,
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    blob_sha256 TEXT NOT NULL,
    blob_size INTEGER NOT NULL,
    job_id INTEGER NOT NULL REFERENCES job,
    PRIMARY KEY (result_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "artifact" VALUES(1,'analysis.json','application/json','4e85cce5c3a4dc8d0ca0098fb89ef26ca47d605c19ab7c73c4dc4339478a798f',970,1);
INSERT INTO "artifact" VALUES(1,'signed-sr.dcm','application/dicom','7ecf769f71a04016130e1ed673ca7bbff97567115b79dc9e78bb5329b5dc9c3c',5026,3);
INSERT INTO "artifact" VALUES(1,'sr.dcm','application/dicom','3612ab2f50ec809c8038631089af9a02121f93e5959295446f9880f04cea7e7b',4698,1);
INSERT INTO "artifact" VALUES(2,'analysis.json','application/json','d11858ada69dc79357af2c3f31e7e8a41f5e293f2aa2ced242c987045161e1aa',1035,4);
INSERT INTO "artifact" VALUES(2,'sr.dcm','application/dicom','a8a47f29ae18059d21120d20a5a3f85032092d42a2c337af756c2b134565cf0f',4916,4);
CREATE TABLE association (
    association_id INTEGER PRIMARY KEY,
    calling_aet TEXT NOT NULL,
    peer_address TEXT NOT NULL,
    opened_ms INTEGER NOT NULL,
    last_study_uid TEXT REFERENCES study
) STRICT;
CREATE TABLE association_study (
    association_id INTEGER NOT NULL REFERENCES association ON DELETE CASCADE,
    study_uid TEXT NOT NULL REFERENCES study,
    instances INTEGER NOT NULL,
    PRIMARY KEY (association_id, study_uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    content TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;
INSERT INTO "audit" VALUES(1,'{"row":1,"time_ms":1795536145075,"code":"110114","action":"user-add","outcome":0,"actor":"jane"}','7ea8fb2fa9dc51c49f2810a384a24738e08dd87e221840b8ef4f2f462d97226b');
INSERT INTO "audit" VALUES(2,'{"row":2,"time_ms":1795536145439,"code":"110100","action":"110120","outcome":0,"actor":"pulmo","address":"","study_uid":"","detail":"reception"}','9886d67c18a74b622a3fbcd6dd1aae07a5da5364144ad8b7d3ea669b23beccb6');
INSERT INTO "audit" VALUES(3,'{"row":3,"time_ms":1795536145567,"code":"110102","action":"E","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"","detail":"association opened; called PULMO; instance ; status 0x0000; "}','e391179141511e9930f210bf20b60f441f1bbcea0afccead08b7ed2a29ed6d02');
INSERT INTO "audit" VALUES(4,'{"row":4,"time_ms":1795536145569,"code":"110102","action":"receive-begin","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"1.2.826.0.1.3680043.10.999.6.1"}','5aa3ec39eb6ba7015cc3ccaa677729fbc2806ac78ea44759e96b1673d47f37ba');
INSERT INTO "audit" VALUES(5,'{"row":5,"time_ms":1795536145621,"code":"110104","action":"receive","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"4 instances"}','87ba7e39ca374691a4cb0c22624643a9df631c5524ed3124e6fef50fbe8e817e');
INSERT INTO "audit" VALUES(6,'{"row":6,"time_ms":1795536145622,"code":"110104","action":"E","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"","detail":"association closed; called PULMO; instance ; status 0x0000; released or aborted"}','c0c3452355d9a1fd075c0083081e6e24d3e6f4b20920faa9ff008f5f9594064c');
INSERT INTO "audit" VALUES(7,'{"row":7,"time_ms":1795536145638,"code":"110102","action":"E","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"","detail":"association opened; called PULMO; instance ; status 0x0000; "}','b7b73a22f0d754b0a6074ffd9e0d0e357e26498f71e30551ca3930110e4ff1f4');
INSERT INTO "audit" VALUES(8,'{"row":8,"time_ms":1795536145653,"code":"110113","action":"instance-conflict","outcome":4,"actor":"CRASH","address":"127.0.0.1","study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"SOP Instance UID 1.2.826.0.1.3680043.10.999.6.1.1.2, content 4e7c92ffd3bd8a4a4de4fd82ca92e623b96eccf0bfb40e04742e59d2d725ef3d"}','d83af0e3f2aad787525287d95992df95a134cb7819ce9f7c1d856706926867ed');
INSERT INTO "audit" VALUES(9,'{"row":9,"time_ms":1795536145656,"code":"110107","action":"instance-corrected","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"SOP Instance UID 1.2.826.0.1.3680043.10.999.6.1.1.1, content 620656ecd9a9ef544745199f3574493302d65b302d07d7467435e32e3f42f321"}','26e0c0a6c9431da6fa8c4f8a3d15ce63895ecca82a1ee79edde3ea389cce655d');
INSERT INTO "audit" VALUES(10,'{"row":10,"time_ms":1795536145665,"code":"110104","action":"receive","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"2 instances"}','5e0cd8a090aa602483aefb0b8b78d303f52fc60aafc71b3ff1fa7e760c288ec5');
INSERT INTO "audit" VALUES(11,'{"row":11,"time_ms":1795536145666,"code":"110104","action":"E","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"","detail":"association closed; called PULMO; instance ; status 0x0000; released or aborted"}','975bb72f4c925fdb873524248e099f77f55716fa7ba281a6c477f405038c4ecb');
INSERT INTO "audit" VALUES(12,'{"row":12,"time_ms":1795536146169,"code":"110100","action":"110121","outcome":0,"actor":"pulmo","address":"","study_uid":"","detail":"reception"}','ec0f93c78c172934a31b3775214540b0188aaed0050685a7b75945eab953587f');
INSERT INTO "audit" VALUES(13,'{"row":13,"time_ms":1795536146420,"code":"110103","action":"study-complete","outcome":0,"study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"revision 5, 4 instances"}','5a54fe964e86cfc80f13f59e436af298b3c1e7a6122102fb96f255479781cd8f');
INSERT INTO "audit" VALUES(14,'{"row":14,"time_ms":1795536146618,"code":"110103","action":"analyse","outcome":0,"study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"result 1, revision 5, refused TOO_FEW_SLICES, 0 findings, model b12572479be7161407d6925eedd82f90b95c6cd524b125be08b35dd5a98e6097"}','03e5b6619f1a03a5083e8602f3ffe335e9d74524c7271c8404f6cc8e4bc22381');
INSERT INTO "audit" VALUES(15,'{"row":15,"time_ms":1795536147242,"code":"110114","action":"login","outcome":0,"actor":"jane","address":"127.0.0.1"}','80117ee78c21c664d95206ecde85510d508f2e87def535fb64e0eaff4c52a177');
INSERT INTO "audit" VALUES(16,'{"row":16,"time_ms":1795536147304,"code":"110103","action":"read","outcome":0,"actor":"jane","address":"127.0.0.1","study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"opened in the viewer"}','3fcca1953bba890ccb4cdf14b87a41d1f7134252e26fa786c4978149b772dcfd');
INSERT INTO "audit" VALUES(17,'{"row":17,"time_ms":1795536147305,"code":"110114","action":"login","outcome":0,"actor":"jane","address":"127.0.0.1"}','13f2f4c92ca5f20d85a9a615eb0d330549b68e6a490adbb39a1e60ebac10b568');
INSERT INTO "audit" VALUES(18,'{"row":18,"time_ms":1795536147305,"code":"110103","action":"sign-request","outcome":0,"actor":"jane","study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"result 1"}','5ca7e89edd7125924c460a0e2c894221d3b51b0b397ae54869d894f97b5d77c5');
INSERT INTO "audit" VALUES(19,'{"row":19,"time_ms":1795536147389,"code":"110100","action":"110120","outcome":0,"actor":"pulmo","address":"","study_uid":"","detail":"reception"}','909737ef519a4c782ded1ea7f6ad46f8996f5b2a5946aa83f9ca8113919f016f');
INSERT INTO "audit" VALUES(20,'{"row":20,"time_ms":1795536147469,"code":"110102","action":"E","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"","detail":"association opened; called PULMO; instance ; status 0x0000; "}','084fe70cfde8c2a36e954f25dd948b631d7117e53d9b8f9f4e00247d9d1f7f3c');
INSERT INTO "audit" VALUES(21,'{"row":21,"time_ms":1795536147471,"code":"110104","action":"receive","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"1 instances"}','660bb6d61e97f8604a40ba3f022e6d96d7730582f5d74d72b2f525ee6a027803');
INSERT INTO "audit" VALUES(22,'{"row":22,"time_ms":1795536147480,"code":"110104","action":"E","outcome":0,"actor":"CRASH","address":"127.0.0.1","study_uid":"","detail":"association closed; called PULMO; instance ; status 0x0000; released or aborted"}','11dcf791e2591f107b5d569ce43a4abd37099fd2f4fc0e079215e98b7762749b');
INSERT INTO "audit" VALUES(23,'{"row":23,"time_ms":1795536147972,"code":"110100","action":"110121","outcome":0,"actor":"pulmo","address":"","study_uid":"","detail":"reception"}','50b4fbc738531506149f7fee91c2dfe7945e869a915ec015f5368bb5c54b6e30');
INSERT INTO "audit" VALUES(24,'{"row":24,"time_ms":1795536148221,"code":"110103","action":"study-complete","outcome":0,"study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"revision 6, 5 instances"}','e9ea5fe43aec611adb9da7a657d5ec7f9bbc256a469efbc8afc538b5313f4e15');
INSERT INTO "audit" VALUES(25,'{"row":25,"time_ms":1795536148370,"code":"110103","action":"sign","outcome":0,"actor":"jane","study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"result 1"}','b0c5bd01a9962b852eedee0ee63a08cb7d160ca5f5a9ecf397eacb56338e6623');
INSERT INTO "audit" VALUES(26,'{"row":26,"time_ms":1795536148426,"code":"110103","action":"analyse","outcome":0,"study_uid":"1.2.826.0.1.3680043.10.999.6.1","detail":"result 2, revision 6, refused TOO_FEW_SLICES, 0 findings, model b12572479be7161407d6925eedd82f90b95c6cd524b125be08b35dd5a98e6097"}','967c1f34d28ce09218768fcae8a39c8d205eadb0577a4ad4443d9830422f3eba');
CREATE TABLE audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    row_count INTEGER NOT NULL,
    digest TEXT NOT NULL
) STRICT;
INSERT INTO "audit_head" VALUES(1,26,'967c1f34d28ce09218768fcae8a39c8d205eadb0577a4ad4443d9830422f3eba');
CREATE TABLE destination_pause (
    destination TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    due_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE instance (
    sop_instance_uid TEXT NOT NULL,
    blob_sha256 TEXT NOT NULL,
    blob_size INTEGER NOT NULL,
    study_uid TEXT NOT NULL REFERENCES study,
    series_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    instance_number INTEGER NOT NULL,
    series_description TEXT NOT NULL,
    modality TEXT NOT NULL,
    calling_aet TEXT NOT NULL,
    called_aet TEXT NOT NULL,
    peer_address TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    attributes_sha256 TEXT NOT NULL,
    version TEXT NOT NULL CHECK (version IN ('first', 'transcoded', 'corrected', 'conflict', 'foreign')),
    current INTEGER NOT NULL CHECK (current IN (0, 1)),
    PRIMARY KEY (sop_instance_uid, blob_sha256)
) STRICT, WITHOUT ROWID;
INSERT INTO "instance" VALUES('1.2.826.0.1.3680043.10.999.6.1.1.1','620656ecd9a9ef544745199f3574493302d65b302d07d7467435e32e3f42f321',9488,'1.2.826.0.1.3680043.10.999.6.1','1.2.826.0.1.3680043.10.999.6.1.1','1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1',1,'Synthetic chest','CT','CRASH','PULMO','127.0.0.1',1795536145655,'74d55abb23ac117e68f5c8ddf6d4d15796ad4cbe002ae9c5c1a91aeff55a6bc9','corrected',1);
INSERT INTO "instance" VALUES('1.2.826.0.1.3680043.10.999.6.1.1.1','9a79c5957b9c9f7631b5b4ef5a4983b71b939a5cc794c0e0f3383aea3677f8db',9488,'1.2.826.0.1.3680043.10.999.6.1','1.2.826.0.1.3680043.10.999.6.1.1','1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1',1,'Synthetic chest','CT','CRASH','PULMO','127.0.0.1',1795536145568,'b3d2c9b4c98477e205e32e09d65fb7cea96a1270b641599038a4096c39d7c119','first',0);
INSERT INTO "instance" VALUES('1.2.826.0.1.3680043.10.999.6.1.1.2','3bf315e89b22cbbdcfde94275fbbab67cc9863d730e634c8914e7ecc9a53e203',9488,'1.2.826.0.1.3680043.10.999.6.1','1.2.826.0.1.3680043.10.999.6.1.1','1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1',2,'Synthetic chest','CT','CRASH','PULMO','127.0.0.1',1795536145572,'da5c18a961e29867eaab48ff2bb46ec4e0eb0a3d03d9407f45b0243f36c6b910','first',1);
INSERT INTO "instance" VALUES('1.2.826.0.1.3680043.10.999.6.1.1.2','4e7c92ffd3bd8a4a4de4fd82ca92e623b96eccf0bfb40e04742e59d2d725ef3d',9488,'1.2.826.0.1.3680043.10.999.6.1','1.2.826.0.1.3680043.10.999.6.1.1','1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1',2,'Synthetic chest','CT','CRASH','PULMO','127.0.0.1',1795536145641,'da5c18a961e29867eaab48ff2bb46ec4e0eb0a3d03d9407f45b0243f36c6b910','conflict',0);
INSERT INTO "instance" VALUES('1.2.826.0.1.3680043.10.999.6.1.1.3','76dda8d821b1b4c5f1beb0e2d5e604804e8ff709e31f8887195e0b1d816e3ba3',9488,'1.2.826.0.1.3680043.10.999.6.1','1.2.826.0.1.3680043.10.999.6.1.1','1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1',3,'Synthetic chest','CT','CRASH','PULMO','127.0.0.1',1795536145611,'1e4203dbb17dbab273aeb96897cc191a92a71e31337cd6a3fd8ed7de3b7d78d2','first',1);
INSERT INTO "instance" VALUES('1.2.826.0.1.3680043.10.999.6.1.1.4','12f9159d167495036d3f3e20089df9a57439e0a3eb01a2741a9fac42d4c51fd5',9488,'1.2.826.0.1.3680043.10.999.6.1','1.2.826.0.1.3680043.10.999.6.1.1','1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1',4,'Synthetic chest','CT','CRASH','PULMO','127.0.0.1',1795536145612,'22a9f950af2fa2f06264f9bdbb2ad3d193e14608bed8c104f27479cbe878ba31','first',1);
INSERT INTO "instance" VALUES('1.2.826.0.1.3680043.10.999.6.1.1.5','9a87e80428cbee3a1ee1c941ae9d68405b2a850048a8ca8b63df35ee6d5969b9',9488,'1.2.826.0.1.3680043.10.999.6.1','1.2.826.0.1.3680043.10.999.6.1.1','1.2.840.10008.5.1.4.1.1.2','1.2.840.10008.1.2.1',5,'Synthetic chest','CT','CRASH','PULMO','127.0.0.1',1795536147469,'d79caafce043132a481c470a8797e592fb6b508b2694f245a376c21621b2f962','first',1);
CREATE TABLE instance_refused (
    sop_instance_uid TEXT PRIMARY KEY,
    study_uid TEXT NOT NULL REFERENCES study,
    refused_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    study_uid TEXT NOT NULL REFERENCES study,
    revision INTEGER NOT NULL,
    result_id INTEGER REFERENCES result,
    user TEXT,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'leased', 'done', 'dead', 'superseded')),
    attempt INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    lease TEXT,
    leased_until_ms INTEGER,
    reason TEXT,
    created_ms INTEGER NOT NULL,
    finished_ms INTEGER
) STRICT;
INSERT INTO "job" VALUES(1,1,'1.2.826.0.1.3680043.10.999.6.1',5,NULL,NULL,'done',1,1795536146420,NULL,1795536446420,NULL,1795536146420,1795536146618);
INSERT INTO "job" VALUES(2,2,'1.2.826.0.1.3680043.10.999.6.1',5,NULL,NULL,'done',1,1795536146420,NULL,1795536446680,NULL,1795536146420,1795536146858);
INSERT INTO "job" VALUES(3,3,'1.2.826.0.1.3680043.10.999.6.1',6,1,'jane','done',1,1795536147305,NULL,1795536448220,NULL,1795536147305,1795536148370);
INSERT INTO "job" VALUES(4,1,'1.2.826.0.1.3680043.10.999.6.1',6,NULL,NULL,'done',1,1795536148220,NULL,1795536448381,NULL,1795536148220,1795536148426);
INSERT INTO "job" VALUES(5,2,'1.2.826.0.1.3680043.10.999.6.1',6,NULL,NULL,'queued',0,1795536148220,NULL,NULL,NULL,1795536148220,NULL);
CREATE TABLE login_failure (
    name TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    locked_until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('device_uid','2.25.65705051069477425969252558326828096471');
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    result_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'leased', 'sent', 'dead')),
    attempt INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    lease TEXT,
    leased_until_ms INTEGER,
    reason TEXT,
    created_ms INTEGER NOT NULL,
    sent_ms INTEGER,
    UNIQUE (result_id, name, destination),
    FOREIGN KEY (result_id, name) REFERENCES artifact
) STRICT;
INSERT INTO "outbox" VALUES(1,'PACS@127.0.0.1:31498',1,'sr.dcm','queued',0,0,1795536146618,NULL,NULL,NULL,1795536146618,NULL);
INSERT INTO "outbox" VALUES(2,'PACS@127.0.0.1:31498',1,'signed-sr.dcm','queued',0,0,1795536148370,NULL,NULL,NULL,1795536148370,NULL);
INSERT INTO "outbox" VALUES(3,'PACS@127.0.0.1:31498',2,'sr.dcm','queued',0,0,1795536148426,NULL,NULL,NULL,1795536148426,NULL);
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL UNIQUE REFERENCES job,
    study_uid TEXT NOT NULL REFERENCES study,
    study_revision INTEGER NOT NULL,
    series_uid TEXT NOT NULL,
    status INTEGER NOT NULL CHECK (status IN (1, 2, 3)),
    reason TEXT NOT NULL,
    summary_json TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    backend TEXT NOT NULL,
    findings_reported INTEGER NOT NULL,
    probability_max REAL NOT NULL,
    review INTEGER NOT NULL CHECK (review IN (0, 1)),
    created_ms INTEGER NOT NULL,
    superseded_by INTEGER REFERENCES result DEFERRABLE INITIALLY DEFERRED
) STRICT;
INSERT INTO "result" VALUES(1,1,'1.2.826.0.1.3680043.10.999.6.1',5,'1.2.826.0.1.3680043.10.999.6.1.1',2,'TOO_FEW_SLICES: 4 slices (16 are the least)','{"pulmo":"0.1.0","study_uid":"1.2.826.0.1.3680043.10.999.6.1","series_uid":"1.2.826.0.1.3680043.10.999.6.1.1","status":"refused","notice":"Research use only. Not for diagnosis.","reasons":["TOO_FEW_SLICES: 4 slices (16 are the least)"],"quality":{},"model":{"name":"pulmo-nodule","version":"0.1.0","sha256":"b12572479be7161407d6925eedd82f90b95c6cd524b125be08b35dd5a98e6097"},"backend":"cpu","backend_detail":"oneDNN 2.6.3, avx512_core_bf16","precision":"fp32","seed":1,"passes":2,"dropout":0.2,"operating_point":0.7,"created_ms":1795536146422,"input_sha256":["12f9159d167495036d3f3e20089df9a57439e0a3eb01a2741a9fac42d4c51fd5","3bf315e89b22cbbdcfde94275fbbab67cc9863d730e634c8914e7ecc9a53e203","620656ecd9a9ef544745199f3574493302d65b302d07d7467435e32e3f42f321","76dda8d821b1b4c5f1beb0e2d5e604804e8ff709e31f8887195e0b1d816e3ba3"],"timings_ms":{"read":191,"resample":0,"detect":0,"uncertainty":0,"segment":0,"explain":0,"total":192},"peak_rss_bytes":38449152,"findings":[]}','b12572479be7161407d6925eedd82f90b95c6cd524b125be08b35dd5a98e6097','oneDNN 2.6.3, avx512_core_bf16',0,0.0,0,1795536146618,2);
INSERT INTO "result" VALUES(2,4,'1.2.826.0.1.3680043.10.999.6.1',6,'1.2.826.0.1.3680043.10.999.6.1.1',2,'TOO_FEW_SLICES: 5 slices (16 are the least)','{"pulmo":"0.1.0","study_uid":"1.2.826.0.1.3680043.10.999.6.1","series_uid":"1.2.826.0.1.3680043.10.999.6.1.1","status":"refused","notice":"Research use only. Not for diagnosis.","reasons":["TOO_FEW_SLICES: 5 slices (16 are the least)"],"quality":{},"model":{"name":"pulmo-nodule","version":"0.1.0","sha256":"b12572479be7161407d6925eedd82f90b95c6cd524b125be08b35dd5a98e6097"},"backend":"cpu","backend_detail":"oneDNN 2.6.3, avx512_core_bf16","precision":"fp32","seed":1,"passes":2,"dropout":0.2,"operating_point":0.7,"created_ms":1795536148388,"input_sha256":["12f9159d167495036d3f3e20089df9a57439e0a3eb01a2741a9fac42d4c51fd5","3bf315e89b22cbbdcfde94275fbbab67cc9863d730e634c8914e7ecc9a53e203","620656ecd9a9ef544745199f3574493302d65b302d07d7467435e32e3f42f321","76dda8d821b1b4c5f1beb0e2d5e604804e8ff709e31f8887195e0b1d816e3ba3","9a87e80428cbee3a1ee1c941ae9d68405b2a850048a8ca8b63df35ee6d5969b9"],"timings_ms":{"read":19,"resample":0,"detect":0,"uncertainty":0,"segment":0,"explain":0,"total":20},"peak_rss_bytes":38686720,"findings":[]}','b12572479be7161407d6925eedd82f90b95c6cd524b125be08b35dd5a98e6097','oneDNN 2.6.3, avx512_core_bf16',0,0.0,0,1795536148426,NULL);
CREATE TABLE session (
    token_sha256 TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES user,
    created_ms INTEGER NOT NULL,
    used_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE signature (
    result_id INTEGER PRIMARY KEY REFERENCES result,
    job_id INTEGER NOT NULL REFERENCES job,
    user TEXT NOT NULL,
    signed_ms INTEGER NOT NULL
) STRICT;
INSERT INTO "signature" VALUES(1,3,'jane',1795536148370);
CREATE TABLE study (
    study_uid TEXT PRIMARY KEY,
    patient_name TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    study_date TEXT NOT NULL,
    study_time TEXT NOT NULL,
    description TEXT NOT NULL,
    first_received_ms INTEGER NOT NULL,
    last_received_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    queued_revision INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO "study" VALUES('1.2.826.0.1.3680043.10.999.6.1','CORRECTED^NAME','PULMO-PHANTOM','','20260101','080000','Phantom seed 1',1795536145568,1795536147469,6,6);
CREATE TABLE study_artifact (
    study_uid TEXT NOT NULL REFERENCES study,
    job_id INTEGER NOT NULL REFERENCES job,
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    blob_sha256 TEXT NOT NULL,
    blob_size INTEGER NOT NULL,
    PRIMARY KEY (study_uid, job_id, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE study_source (
    study_uid TEXT NOT NULL REFERENCES study,
    calling_aet TEXT NOT NULL,
    peer_address TEXT NOT NULL,
    first_received_ms INTEGER NOT NULL,
    PRIMARY KEY (study_uid, calling_aet, peer_address)
) STRICT, WITHOUT ROWID;
INSERT INTO "study_source" VALUES('1.2.826.0.1.3680043.10.999.6.1','CRASH','127.0.0.1',1795536145568);
CREATE TABLE user (
    name TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'radiologist', 'administrator', 'auditor')),
    password TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "user" VALUES('jane','Jane Reader','radiologist','$argon2id$v=19$m=64,t=1,p=1$Y3Jhc2ggbWF0cml4IHRlcw$Ll4VLDsP04myKFX0LaesG3GZpTBe/bkayQHxjZ2uNTs',0,1795536145074);
CREATE TABLE verdict (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    result_id INTEGER NOT NULL REFERENCES result,
    finding_id INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('accepted', 'rejected', 'none', 'added', 'removed')),
    x_mm REAL NOT NULL,
    y_mm REAL NOT NULL,
    z_mm REAL NOT NULL,
    diameter_mm REAL NOT NULL,
    user TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are immutable'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are immutable'); END;
CREATE INDEX study_incomplete ON study (last_received_ms) WHERE revision > queued_revision;
CREATE INDEX association_study_uid ON association_study (study_uid);
CREATE INDEX instance_refused_study ON instance_refused (study_uid);
CREATE UNIQUE INDEX instance_current ON instance (sop_instance_uid) WHERE current = 1;
CREATE INDEX instance_study ON instance (study_uid, current);
CREATE INDEX instance_blob ON instance (blob_sha256);
CREATE UNIQUE INDEX job_queued ON job (study_uid, kind) WHERE state = 'queued' AND kind IN (1, 2);
CREATE UNIQUE INDEX job_signing ON job (result_id) WHERE state IN ('queued', 'leased') AND kind = 3;
CREATE INDEX job_open ON job (kind, id) WHERE state IN ('queued', 'leased');
CREATE INDEX job_study ON job (study_uid, kind, id);
CREATE UNIQUE INDEX result_current ON result (study_uid) WHERE superseded_by IS NULL;
CREATE TRIGGER result_no_delete BEFORE DELETE ON result BEGIN SELECT RAISE(ABORT, 'results are immutable'); END;
CREATE TRIGGER result_no_update BEFORE UPDATE ON result
WHEN OLD.superseded_by IS NOT NULL OR NEW.superseded_by IS NULL
    OR (NEW.id, NEW.job_id, NEW.study_uid, NEW.study_revision, NEW.series_uid, NEW.status, NEW.reason, NEW.summary_json,
        NEW.model_sha256, NEW.backend, NEW.findings_reported, NEW.probability_max, NEW.review, NEW.created_ms)
    IS NOT (OLD.id, OLD.job_id, OLD.study_uid, OLD.study_revision, OLD.series_uid, OLD.status, OLD.reason, OLD.summary_json,
        OLD.model_sha256, OLD.backend, OLD.findings_reported, OLD.probability_max, OLD.review, OLD.created_ms)
BEGIN SELECT RAISE(ABORT, 'results are immutable'); END;
CREATE INDEX artifact_blob ON artifact (blob_sha256);
CREATE TRIGGER artifact_no_update BEFORE UPDATE ON artifact BEGIN SELECT RAISE(ABORT, 'artifacts are immutable'); END;
CREATE TRIGGER artifact_no_delete BEFORE DELETE ON artifact BEGIN SELECT RAISE(ABORT, 'artifacts are immutable'); END;
CREATE INDEX study_artifact_blob ON study_artifact (blob_sha256);
CREATE TRIGGER study_artifact_no_update BEFORE UPDATE ON study_artifact
BEGIN SELECT RAISE(ABORT, 'artifacts are immutable'); END;
CREATE INDEX verdict_finding ON verdict (result_id, finding_id, id);
CREATE TRIGGER verdict_no_update BEFORE UPDATE ON verdict BEGIN SELECT RAISE(ABORT, 'verdicts are immutable'); END;
CREATE TRIGGER verdict_no_delete BEFORE DELETE ON verdict BEGIN SELECT RAISE(ABORT, 'verdicts are immutable'); END;
CREATE TRIGGER signature_no_update BEFORE UPDATE ON signature BEGIN SELECT RAISE(ABORT, 'signatures are immutable'); END;
CREATE TRIGGER signature_no_delete BEFORE DELETE ON signature BEGIN SELECT RAISE(ABORT, 'signatures are immutable'); END;
CREATE INDEX outbox_open ON outbox (due_ms, id) WHERE state IN ('queued', 'leased');
CREATE INDEX login_failure_last ON login_failure (last_ms);
CREATE INDEX session_user ON session (user);
CREATE VIEW worklist AS
SELECT study.study_uid, patient_name, patient_id, accession_number, study_date, description,
    CASE
        WHEN job.state = 'leased' THEN 'analysing'
        WHEN study.revision > study.queued_revision THEN 'receiving'
        WHEN job.state = 'queued' THEN 'queued'
        WHEN job.state = 'dead' THEN 'failed'
        WHEN signature.result_id IS NOT NULL THEN 'signed'
        WHEN result.status = 1 THEN 'analysed'
        WHEN result.status = 2 THEN 'refused'
        WHEN result.status = 3 THEN 'failed'
        ELSE 'receiving'
    END AS state,
    CASE WHEN job.state IN ('queued', 'leased', 'dead') THEN coalesce(job.reason, '')
        ELSE coalesce(result.reason, '') END AS reason,
    first_received_ms,
    (SELECT count(*) FROM instance WHERE instance.study_uid = study.study_uid AND current = 1) AS instances,
    coalesce(result.id, 0) AS result_id,
    coalesce(result.findings_reported, 0) AS findings_reported,
    coalesce(result.probability_max, 0.0) AS probability_max,
    coalesce(result.review, 0) AS review
FROM study
LEFT JOIN result ON result.study_uid = study.study_uid AND result.superseded_by IS NULL
LEFT JOIN signature ON signature.result_id = result.id
LEFT JOIN job ON job.id = (SELECT max(id) FROM job AS latest WHERE latest.study_uid = study.study_uid AND latest.kind = 1);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('job',5);
INSERT INTO "sqlite_sequence" VALUES('result',2);
INSERT INTO "sqlite_sequence" VALUES('outbox',3);
COMMIT;
