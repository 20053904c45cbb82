// urql with its default options, its subscriptions by graphql-ws as its documentation has it ("Subscriptions"):
// node urql_client.mjs <URL>.
import { Client, cacheExchange, fetchExchange, subscriptionExchange } from '@urql/core';
import { onEnd, pipe, subscribe } from 'wonka';
import { graphqlWs } from './graphql_ws_socket.mjs';
import { follow, tellRequests } from './orders.mjs';

tellRequests();
const url = process.argv[2];
const socket = graphqlWs(url);
const client = new Client({
  url,
  exchanges: [
    cacheExchange,
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: (request) => {
        const input = { ...request, query: request.query || '' };
        return { subscribe: (sink) => ({ unsubscribe: socket.subscribe(input, sink) }) };
      },
    }),
  ],
});

await follow(({ query, variables, execute }, sink) => {
  if (execute) {
    const executed = client[query.startsWith('mutation') ? 'mutation' : 'query'](query, variables);
    executed.toPromise().then(({ data, error }) => {
      if (error) {
        sink.error(error);
      } else {
        sink.next({ data });
        sink.complete();
      }
    });
    return () => {};
  }
  let failed = false;
  const { unsubscribe } = pipe(
    client.subscription(query, variables),
    onEnd(() => failed || sink.complete()),
    subscribe(({ data, error, hasNext }) => {
      failed ||= Boolean(error);
      if (error) sink.error(error);
      // At the end it repeats the last result, with `hasNext` false.
      else if (hasNext) sink.next({ data });
    }),
  );
  return unsubscribe;
});
