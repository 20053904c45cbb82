// The audit of graphql-http against a server of GraphQL over HTTP; prints one JSON object.
import { auditServer } from "graphql-http";

const results = await auditServer({ url: process.argv[2], fetchFn: fetch });
const missed = results.filter((each) => each.status !== "ok");
console.log(
  JSON.stringify({
    audits: results.length,
    ok: results.length - missed.length,
    missed: missed.map((each) => `${each.id} ${each.name}: ${each.reason}`),
  }),
);
