// A handler: it greets everybody in a list, three at a time, and keeps what it said.
import { assert as assertJob } from '@oada/types/oada/service/job.js';
import PQueue from 'p-queue';
import { generate } from 'xksuid';

const tree = {
  bookmarks: {
    _type: 'application/vnd.oada.bookmarks.1+json',
    _rev: 0,
    greetings: {
      '_type': 'application/vnd.oada.greetings.1+json',
      '_rev': 0,
      '*': { _type: 'application/vnd.oada.greeting.1+json', _rev: 0 },
    },
  },
};

export const timeout = 10 * 1000;

export default async (job, { jobId, log, oada }) => {
  assertJob(job);
  log.info('started', { jobId });

  const queue = new PQueue({ concurrency: 3 });
  const keys = await queue.addAll(
    job.config.names.map((name) => async () => {
      const key = generate();
      const data = { name, text: `Hello, ${name}!` };
      await oada.put({ path: `/bookmarks/greetings/${key}`, data, tree });
      log.debug({ name }, 'greeted');
      return key;
    }),
  );
  log.info({ count: keys.length }, 'greeted all');

  await oada.ensure({ path: '/bookmarks/greetings/summary', data: { greeted: 0 }, tree });
  const { data: greetings } = await oada.get({ path: '/bookmarks/greetings', tree });
  const texts = keys.map((key) => greetings[key].text);
  const missing = await oada.get({ path: '/bookmarks/nobody' }).catch(({ status, code }) => ({ status, code }));
  return { texts, missing, summary: greetings.summary.greeted };
};
