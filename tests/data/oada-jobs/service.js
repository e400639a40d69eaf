// A service of `@oada/jobs` for `suite.mjs`: `node service.js <domain> <token> <service>`. Prints `started`.
const { Service } = require('@oada/jobs');

const [, , domain, token, name] = process.argv;
const service = new Service(name, domain, token, 10);
service.on('basic', 60_000, async ({ config }, { log }) => {
  await log.info('working', { on: config.do });
  if (config.do !== 'success') throw new Error(`config.do is ${config.do}`);
  return { success: true };
});
service.on('slow', 100, () => new Promise(() => {}));
service.start().then(() => console.log('started'));
