// Apollo Client with its default options: subscriptions by graphql-ws, the rest over HTTP:
// node apollo_client.mjs <3 | 4> <URL>.
import { createRequire } from 'node:module';
import { graphqlWs } from './graphql_ws_socket.mjs';
import { follow, tellRequests } from './orders.mjs';

const require = createRequire(import.meta.url); // version 3 has no entry without React for import
const [version, url] = process.argv.slice(2);
const [core, root] = version === '3' ? ['@apollo/client/core', '@apollo/client'] : ['apollo-client-4', 'apollo-client-4'];
const { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } = require(core);
const { GraphQLWsLink } = require(`${root}/link/subscriptions`);
const { getMainDefinition } = require(`${root}/utilities`);

tellRequests();
const socket = graphqlWs(url);
const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: ApolloLink.split(
    ({ query }) => getMainDefinition(query).operation === 'subscription',
    new GraphQLWsLink(socket),
    new HttpLink({ uri: url }),
  ),
});

await follow(({ query, variables, execute }, sink) => {
  const document = gql(query);
  if (execute) {
    const executed = query.startsWith('mutation')
      ? client.mutate({ mutation: document, variables })
      : client.query({ query: document, variables });
    executed.then(({ data }) => {
      sink.next({ data });
      sink.complete();
    }, sink.error);
    return () => {};
  }
  let failed = false;
  const subscription = client.subscribe({ query: document, variables }).subscribe({
    // Version 4 hands on the error of an operation as a result, its last.
    next: ({ data, error }) => {
      failed ||= Boolean(error);
      if (error) sink.error(error);
      else sink.next({ data });
    },
    error: sink.error,
    complete: () => failed || sink.complete(),
  });
  return () => subscription.unsubscribe();
});
