// The client of graphql-sse, told what to do by lines of JSON, and telling what it hears in others:
// node graphql_sse_client.mjs <URL> <single | distinct> <retries>.
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { createClient } from 'graphql-sse';

const [url, mode, retries] = process.argv.slice(2);
const client = createClient({
  url,
  singleConnection: mode === 'single',
  retryAttempts: Number(retries),
  retry: () => setTimeout(50),
});
const say = (message) => console.log(JSON.stringify(message));
const ends = {};

for await (const line of createInterface({ input: process.stdin })) {
  const { name, query, variables } = JSON.parse(line);
  if (query === undefined) {
    ends[name]();
  } else {
    ends[name] = client.subscribe(
      { query, variables },
      {
        next: (payload) => say({ name, next: payload }),
        error: (error) => say({ name, end: String(error) }),
        complete: () => say({ name, end: 'complete' }),
      },
    );
  }
}
process.exit();
