// The reference server of the protocol, graphql-ws on ws, with one stream of numbers.
import { createServer } from 'node:http';
import { setImmediate } from 'node:timers/promises';
import { GraphQLInt, GraphQLNonNull, GraphQLObjectType, GraphQLSchema, GraphQLString } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';

const Tick = new GraphQLObjectType({
  name: 'Tick',
  fields: { number: { type: new GraphQLNonNull(GraphQLInt) }, label: { type: new GraphQLNonNull(GraphQLString) } },
});

const schema = new GraphQLSchema({
  query: new GraphQLObjectType({ name: 'Query', fields: { hello: { type: GraphQLString, resolve: () => 'hello' } } }),
  subscription: new GraphQLObjectType({
    name: 'Subscription',
    fields: {
      ticks: {
        type: new GraphQLNonNull(Tick),
        args: { upto: { type: new GraphQLNonNull(GraphQLInt) } },
        async *subscribe(_source, { upto }) {
          for (let number = 0; number < upto; number += 1) {
            yield { ticks: { number, label: `tick ${number}` } };
            await setImmediate();
          }
        },
      },
    },
  }),
});

const server = createServer((_request, response) => response.writeHead(404).end());
useServer({ schema }, new WebSocketServer({ server, path: '/graphql' }));
server.listen(0, '127.0.0.1', () => console.log(`ready: ${server.address().port}`));
