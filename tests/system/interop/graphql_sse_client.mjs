// The client of graphql-sse: node graphql_sse_client.mjs <single | distinct> <URL> [retries].
import { setTimeout } from 'node:timers/promises';
import { createClient } from 'graphql-sse';
import { follow } from './orders.mjs';

const [mode, url, retries = 200] = process.argv.slice(2);
const client = createClient({
  url,
  singleConnection: mode === 'single',
  retryAttempts: Number(retries),
  retry: () => setTimeout(50),
});

await follow(({ query, variables }, sink) => client.subscribe({ query, variables }, sink));
