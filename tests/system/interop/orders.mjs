// Orders to a client in lines of JSON, and what it hears in others.
import { createInterface } from 'node:readline';

/** Tell one thing that the client has heard. */
export const say = (message) => console.log(JSON.stringify(message));

/**
 * Follow the orders to their end: `begin({ query, variables, execute }, sink)` begins an operation and returns
 * what ends it; `execute` is true for a query or mutation. `sink` has next, error and complete.
 */
export async function follow(begin) {
  const ends = {};
  for await (const line of createInterface({ input: process.stdin })) {
    const { name, ...operation } = JSON.parse(line);
    if (operation.query === undefined) {
      ends[name]();
      say({ name, end: 'complete' });
    } else {
      const sink = {
        next: (payload) => say({ name, next: payload }),
        error: (error) => say({ name, end: error.message ?? JSON.stringify(error) }),
        complete: () => say({ name, end: 'complete' }),
      };
      try {
        ends[name] = begin(operation, sink);
      } catch (error) {
        sink.error(error);
      }
    }
  }
  process.exit();
}

/** Tell the method of each request that the client makes. */
export function tellRequests() {
  const { fetch } = globalThis;
  globalThis.fetch = (url, options) => {
    say({ name: '', method: options?.method ?? 'GET' });
    return fetch(url, options);
  };
}
