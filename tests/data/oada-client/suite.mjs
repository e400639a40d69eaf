// What a client expects of a service, whoever wrote that: `node suite.mjs <url> <token> <service> <generation>`. The
// service has the types `basic`, which does as `config.do` says, and `slow`, which never ends. Prints each case that holds.
import assert from "node:assert/strict";
import { createInstance } from "@oada/client";
import { JobEventType, JobsRequest, doJob } from "@oada/client/jobs";

const [, , domain, token, service, generation] = process.argv;
const oada = createInstance({ domain, token, connection: "ws", concurrency: 4, userAgent: "suite/1" });
const contentType = "application/vnd.oada.service.job.1+json";
const root = `/bookmarks/services/${service}`;
const [pending, success, failure] = {
  v2: [`${root}/jobs`, `${root}/jobs-success`, `${root}/jobs-failure`],
  v5: [`${root}/jobs/pending`, `${root}/jobs/success`, `${root}/jobs/failure`],
}[generation];
const today = () => new Date().toISOString().slice(0, 10);
const end = Date.now() + 80_000;

const job = (config, type = "basic") => ({ service, type, config });
const read = async (path) => (await oada.get({ path })).data;
const missing = async (path) => (await oada.head({ path }).catch((error) => error)).status === 404;
const until = async (what, holds) => {
  while (!(await holds())) {
    assert(Date.now() < end, `${what} did not happen`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
/** Posts something, and waits until it is out of the list. */
const worked = async (data) => {
  const { headers } = await oada.post({ path: "/resources", contentType, data });
  const path = headers["content-location"];
  const key = path.replace("/resources/", "");
  await oada.put({ path: `${pending}/${key}`, contentType, data: { _id: path.slice(1) } });
  await until(`the end of ${key}`, () => missing(`${pending}/${key}`));
  return { key, body: await read(path) };
};
/** A day may end meanwhile. */
const filed = async (shelf, key, day) => {
  const days = [...new Set([day, today()])];
  const found = await Promise.all(days.map((it) => missing(`${shelf}/day-index/${it}/${key}`)));
  assert(found.includes(false), `${key} is not in ${shelf}`);
};
const statuses = ({ updates }) =>
  Object.values(updates).sort((a, b) => a.time.localeCompare(b.time)).map(({ status }) => status);

const cases = {
  "a job that succeeds is filed with its result as it is": async () => {
    const day = today();
    const { key, body } = await worked(job({ do: "success" }));
    assert.deepEqual([body.status, body.result], ["success", { success: true }]);
    await filed(success, key, day);
    assert.deepEqual(statuses(body).toSorted(), ["started", "success", "working"]);
    const meta = Object.values(body.updates).find(({ status }) => status === "working").meta;
    assert.deepEqual(meta, { on: "success" });
  },
  "a job that fails is filed with the failures": async () => {
    const day = today();
    const { key, body } = await worked(job({ do: "fail" }));
    assert.equal(body.status, "failure");
    await filed(failure, key, day);
    if (generation === "v5") assert.equal(body.result.message, "config.do is fail");
  },
  "a job that takes too long fails": async () => {
    const day = today();
    const { key, body } = await worked(job({}, "slow"));
    assert.equal(body.status, "failure");
    await filed(failure, key, day);
    if (generation === "v2") return;
    await filed(`${root}/jobs/typed-failure/timeout`, key, day);
    const { name, message } = body.result;
    assert.deepEqual([name, message], ["TimeoutError", "Job exceeded the allowed 100 ms running limit"]);
  },
  "a job of a type that nobody handles fails": async () => {
    const { body } = await worked(job({}, "unknown"));
    assert.equal(body.status, "failure");
    if (generation === "v5") assert.equal(body.result.message, "No worker registered for unknown");
  },
};

const ofTheFifth = {
  "what is no job fails": async () => {
    const day = today();
    const { key, body } = await worked({ thisis: "not a valid job" });
    assert.equal(body.status, "failure");
    await filed(failure, key, day);
  },
  "a job may be made by a tree put, which links it before it is written": async () => {
    const list = "application/vnd.oada.service.jobs.1+json";
    const service1 = { _type: "application/vnd.oada.service.1+json", _rev: 0 };
    const jobs = { _type: list, _rev: 0, pending: { _type: list, "*": { _type: contentType } } };
    const services = { _type: "application/vnd.oada.services.1+json", _rev: 0, "*": { ...service1, jobs } };
    const tree = { bookmarks: { _type: "application/vnd.oada.bookmarks.1+json", _rev: 0, services } };
    const { headers } = await oada.put({ path: `${pending}/abc123`, data: job({ do: "success" }), tree });
    const [, id] = /^\/(resources\/[^/]+)/.exec(headers["content-location"]);
    await until("its end", () => missing(`${pending}/abc123`));
    assert.equal((await read(`/${id}`)).status, "success");
  },
  "doJob gives the job, or throws what its handler threw": async () => {
    assert.deepEqual((await doJob(oada, job({ do: "success" }))).result, { success: true });
    const thrown = await doJob(oada, job({ do: "fail" })).then(assert.fail, (error) => error);
    assert(thrown instanceof Error && thrown.message === "config.do is fail", String(thrown));
    const late = await doJob(oada, job({}, "slow")).then(assert.fail, (error) => error);
    assert.equal(late.name, "TimeoutError");
  },
  "JobsRequest hears of each step": async () => {
    for (const [what, ending] of [["success", JobEventType.Success], ["fail", JobEventType.Failure]]) {
      const request = new JobsRequest({ oada, job: job({ do: what }) });
      const heard = [];
      const ended = new Promise((resolve) => {
        for (const event of Object.values(JobEventType)) {
          request.on(event, async (change) => {
            heard.push(event);
            if (event === ending) resolve(change.job);
          });
        }
      });
      const { _id, key } = await request.start();
      const body = await ended;
      assert.deepEqual([body._id, `resources/${key}`], [_id, _id]);
      const other = ending === JobEventType.Success ? JobEventType.Failure : JobEventType.Success;
      await until("all events", () => ["Status", "Result", "Update", ending].every((event) => heard.includes(event)));
      assert(!heard.includes(other), String(heard));
    }
  },
};

for (const [name, holds] of Object.entries({ ...cases, ...(generation === "v5" ? ofTheFifth : {}) })) {
  await holds();
  console.log(name);
}
process.exit(0);
