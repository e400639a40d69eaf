// Writes the manifests of the npm packages: node deploy/npm/manifests.mjs FOLDER VERSION ARCH
// openfn-worker starts the program; the program is in a package for each platform, of which npm installs the fitting one.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [folder, version, arch] = process.argv.slice(2);
const ARCHITECTURES = ['x64', 'arm64'];
const platform = arch => `openfn-worker-linux-${arch}`;
// npm refuses a provenance from another repository than the manifest names.
const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: name } = process.env;
const repository = server && name ? { type: 'git', url: `git+${server}/${name}.git` } : undefined;

const main = JSON.parse(readFileSync(join(folder, 'openfn-worker/package.json'), 'utf8'));
const write = (name, manifest) =>
  writeFileSync(join(folder, name, 'package.json'), JSON.stringify(manifest, null, 2) + '\n');

write('openfn-worker', {
  ...main,
  version,
  repository,
  optionalDependencies: Object.fromEntries(ARCHITECTURES.map(arch => [platform(arch), version])),
});
write(platform(arch), {
  name: platform(arch),
  version,
  description: `The program of openfn-worker for Linux on ${arch}`,
  license: main.license,
  repository,
  os: ['linux'],
  cpu: [arch],
  libc: ['glibc'],
  files: ['bin'],
  // The package is a program and no module: it stays as files where a package manager would keep archives.
  preferUnplugged: true,
});
