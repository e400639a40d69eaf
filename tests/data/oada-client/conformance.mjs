// Uses every part of @oada/client on a store: `node conformance.mjs <url> <token> <http|ws>`.
import assert from "node:assert/strict";
import { createInstance } from "@oada/client";

const [, , domain, token, connection] = process.argv;
const client = createInstance({ domain, token, connection, concurrency: 4, userAgent: "conformance/1" });
const jobs = "application/vnd.oada.service.jobs.1+json";
const tree = {
  bookmarks: {
    _type: "application/vnd.oada.bookmarks.1+json", _rev: 0,
    services: {
      _type: "application/vnd.oada.services.1+json", _rev: 0,
      "*": {
        _type: "application/vnd.oada.service.1+json", _rev: 0,
        jobs: { _type: jobs, _rev: 0, pending: { _type: jobs }, success: { _type: jobs, _rev: 0 } },
      },
    },
  },
};
const fails = async (status, promise) => {
  const error = await promise.then(() => assert.fail(`status ${status} was expected`), (error) => error);
  assert.equal(String(error.code), String(status), `${error}`);
};

// What is not there, and what may not be seen.
await fails(404, client.head({ path: "/bookmarks/services" }));
await fails(403, client.get({ path: "/resources/unknown" }));
await fails(403, client.delete({ path: "/resources/unknown" }));
const stranger = createInstance({ domain, token: "wrong", connection });
await fails(401, stranger.get({ path: "/bookmarks" }));

// A tree put makes each resource on the way, with its type, versioned where the tree says so.
const root = `/bookmarks/services/${connection}`;
const pending = `${root}/jobs/pending`;
await client.put({ path: pending, tree, data: {} });
await client.ensure({ path: `${root}/jobs/success`, tree, data: {} });
const { data: list, headers } = await client.get({ path: pending });
assert.equal(list._type, jobs);
assert.equal(headers["content-location"], `/${list._id}`);
assert.equal(headers["x-oada-rev"], String(list._rev));
assert.equal(headers.etag, `"${list._id.replace("resources/", "")}/${list._rev}"`);
const { data: above } = await client.get({ path: `${root}/jobs` });
assert.deepEqual(Object.keys(above.pending), ["_id"]);
assert.equal(above.success._rev !== undefined, true);

// Watches tell of links that come and go.
const { changes } = await client.watch({ path: pending, type: "tree", rev: list._rev });
const next = async () => (await changes.next()).value;
const posted = await client.post({ path: "/resources", contentType: jobs, data: { service: "demo", type: "ok" } });
const id = posted.headers["content-location"].slice(1);
const key = id.replace("resources/", "");
await client.put({ path: `${pending}/${key}`, contentType: jobs, data: { _id: id } });
const [linked] = await next();
assert.equal(linked.type, "merge");
assert.equal(linked.path, "");
assert.deepEqual(linked.body[key], { _id: id });
assert.equal(linked.body._rev, list._rev + 1);

// A put merges deeply; a post makes a key.
await client.put({ path: `/${id}`, contentType: jobs, data: { config: { a: 1 } } });
await client.put({ path: `/${id}`, contentType: jobs, data: { config: { b: 2 } } });
const { headers: update } = await client.post({ path: `/${id}/updates`, contentType: jobs, data: { status: "x" } });
assert.match(update["content-location"], new RegExp(`^/${id}/updates/[0-9A-Za-z]{27}$`));
const { data: job } = await client.get({ path: `${pending}/${key}` });
assert.deepEqual([job.service, job.config], ["demo", { a: 1, b: 2 }]);
assert.equal(Object.values(job.updates)[0].status, "x");
assert.deepEqual((await client.get({ path: `/${id}/config/b` })).data, 2);

// A condition holds or refuses.
await fails(412, client.put({ path: `/${id}`, contentType: jobs, data: {}, etagIfMatch: `"${key}/1"` }));
await client.put({ path: `/${id}`, contentType: jobs, data: {}, etagIfMatch: `"${key}/${job._rev}"` });

// The meta document can be written and read.
await client.put({ path: `${pending}/_meta/mine`, contentType: "application/json", data: { rev: 7 } });
assert.equal((await client.get({ path: `${pending}/_meta/mine/rev` })).data, 7);
await next();

// A delete takes the link, not the resource.
await client.delete({ path: `${pending}/${key}` });
const [unlinked] = await next();
assert.equal(unlinked.type, "delete");
assert.equal(unlinked.body[key], null);
assert.equal((await client.get({ path: `/${id}` })).data._id, id);
await fails(404, client.get({ path: `${pending}/${key}` }));

// A change below a versioned link is told above, with the change itself behind it.
const { data: parent } = await client.get({ path: `${root}/jobs` });
const { changes: aboveChanges } = await client.watch({ path: `${root}/jobs`, type: "tree", rev: parent._rev });
await client.put({ path: `${root}/jobs/success`, contentType: jobs, data: { x: 1 } });
const { value: [first, second] } = await aboveChanges.next();
assert.equal(first.body.success._rev, second.body._rev);
assert.deepEqual([first.path, second.path, second.body.x], ["", "/success", 1]);

// A watch from an older revision is told what it has missed.
const { changes: replay } = await client.watch({ path: pending, type: "tree", rev: list._rev });
assert.deepEqual((await replay.next()).value[0].body[key], { _id: id });

console.log("conforms");
process.exit(0);
