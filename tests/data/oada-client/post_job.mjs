// Posts a job and waits for its end: `node post_job.mjs <url> <token> <service> <type> <config>`. Prints the job.
import { createInstance } from "@oada/client";

const [, , domain, token, service, type, config] = process.argv;
const client = createInstance({ domain, token, connection: "ws", concurrency: 4, userAgent: "post-job/1" });
const contentType = "application/vnd.oada.service.job.1+json";
const data = { service, type, config: JSON.parse(config) };
const { headers } = await client.post({ path: "/resources", contentType, data });
const path = headers["content-location"];
const key = path.replace("/resources/", "");
const { changes } = await client.watch({ path, type: "tree" });
const link = `/bookmarks/services/${service}/jobs/pending/${key}`;
await client.put({ path: link, contentType, data: { _id: path.slice(1) } });
for await (const change of changes) {
  if (change.some(({ body }) => ["success", "failure"].includes(body?.status))) break;
}
const { data: job } = await client.get({ path });
console.log(JSON.stringify(job));
process.exit(0);
