// A small npm registry on the loopback, of the tarballs in a folder: node deploy/npm/registry.mjs FOLDER PORT
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Serves the tarballs in `folder`. The last version of each package is its `latest`. */
export async function serve(folder, port) {
  const tarballs = new Map();
  for (const file of readdirSync(folder).filter(name => name.endsWith('.tgz')).sort()) {
    // Most tarballs have `package`, some another folder.
    const entries = ['-xzOf', join(folder, file), '--wildcards', '--no-wildcards-match-slash', '*/package.json'];
    const manifest = JSON.parse(execFileSync('tar', entries, { encoding: 'utf8' }));
    tarballs.set(file, { manifest, bytes: readFileSync(join(folder, file)) });
  }

  /** What a registry answers for a package. */
  const document = (name, origin) => {
    const versions = {};
    let latest;
    for (const [file, { manifest, bytes }] of tarballs) {
      if (manifest.name !== name) continue;
      const integrity = 'sha512-' + createHash('sha512').update(bytes).digest('base64');
      latest = manifest.version;
      versions[latest] = { ...manifest, dist: { tarball: `${origin}/${file}`, integrity } };
    }
    return latest && { name, 'dist-tags': { latest }, versions };
  };

  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname.slice(1));
    const tarball = tarballs.get(path);
    if (tarball) return response.end(tarball.bytes);
    const found = document(path, `http://127.0.0.1:${server.address().port}`);
    response.writeHead(found ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(found ?? { error: 'not found' }));
  });
  server.manifests = [...tarballs.values()].map(({ manifest }) => manifest);
  await new Promise(done => server.listen(port, '127.0.0.1', done));
  return server;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, port] = process.argv.slice(2);
  const { manifests } = await serve(folder, Number(port));
  console.log(`${manifests.length} packages at http://127.0.0.1:${port}`);
}
