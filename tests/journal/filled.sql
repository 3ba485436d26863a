INSERT INTO modality (id, name) VALUES (1, 'OMOP'), (2, 'Images');
INSERT INTO directory (id, path) VALUES (1, 'OMOP'), (2, '1001/Images/1');
INSERT INTO version (id, label, mode, begun_us, completed_us, host, user, tool_version) VALUES
    (1, '20240101000000', 'full', 1704067200000000, 1704067260000000, 'site-a', 'dm', '1.0'),
    (2, '20240201000000', 'full', 1706745600000000, NULL, 'site-a', 'dm', '1.0');
INSERT INTO scan (id, version_id, modality_id, root, begun_us, completed_us, files, bytes, added, modified, touched, renamed, retired, unreadable)
    VALUES (1, 1, 1, '/data', 1704067200000000, 1704067230000000, 1, 14, 1, 0, 0, 0, 0, 0);
INSERT INTO file (id, modality_id, directory_id, name, patient, size, mtime_us, fingerprint, md5, unsettled, change, introduced_by, renamed_from, retired_by, retirement) VALUES
    (1, 1, 1, 'person.csv', NULL, 14, 1704067200000000, x'00112233445566778899aabbccddeeff', x'00112233445566778899aabbccddeeff', 0, 'added', 1, NULL, NULL, NULL),
    (2, 2, 2, 'a.dcm', '1001', 3550, 1704067200000000, x'10112233445566778899aabbccddeeff', NULL, 1, 'added', 1, NULL, 2, 'renamed'),
    (3, 2, 2, 'b.dcm', '1001', 3550, 1704067200000000, x'10112233445566778899aabbccddeeff', NULL, 0, 'renamed', 2, 2, NULL, NULL);
INSERT INTO destination (id, url) VALUES (1, 'az://central/site-a@account');
INSERT INTO submission (id, label, destination_id, begun_us, completed_us, host, user, tool_version)
    VALUES (1, '20240101010000', 1, 1704070800000000, 1704070860000000, 'site-a', 'dm', '1.0');
INSERT INTO delivery (file_id, destination_id, submission_id, key, md5, evidence, etag, delivered_us, seconds)
    VALUES (1, 1, 1, '20240101000000/OMOP/person.csv', x'00112233445566778899aabbccddeeff', 'server', '0x8D', 1704070801000000, 0.5);
INSERT INTO command (id, begun_us, command, arguments, host, user, tool_version, seconds, exit_code)
    VALUES (1, 1704067200000000, 'journal update', '{}', 'site-a', 'dm', '1.0', 60.0, 0);
INSERT INTO custody (id, cloud, state, lock_id, base_etag, offered, implicit, since_us)
    VALUES (1, 'az://central/journal.db@account', 'out', 'abc', NULL, NULL, 1, 1704067200000000);
