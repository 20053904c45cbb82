// The schema of the servers by others: streams of numbers that go well, and some that do not.
import { setImmediate, setTimeout } from 'node:timers/promises';
import { GraphQLInt, GraphQLNonNull, GraphQLObjectType, GraphQLSchema, GraphQLString } from 'graphql';

const Tick = new GraphQLObjectType({
  name: 'Tick',
  fields: { number: { type: new GraphQLNonNull(GraphQLInt) }, label: { type: new GraphQLNonNull(GraphQLString) } },
});

const tick = (number) => ({ ticks: { number, label: `tick ${number}` } });

export const schema = new GraphQLSchema({
  query: new GraphQLObjectType({ name: 'Query', fields: { hello: { type: GraphQLString, resolve: () => 'hello' } } }),
  subscription: new GraphQLObjectType({
    name: 'Subscription',
    fields: {
      ticks: {
        type: new GraphQLNonNull(Tick),
        args: { upto: { type: new GraphQLNonNull(GraphQLInt) }, everyMs: { type: GraphQLInt } },
        subscribe: (_source, { upto, everyMs }) => counted(numbers(upto, everyMs)),
      },
      // Its second event is an error, and the others are not.
      faulty: {
        type: Tick,
        subscribe: () => numbers(3, 20),
        resolve: ({ ticks }) => {
          if (ticks.number === 1) throw new Error('this one cannot be told');
          return ticks;
        },
      },
    },
  }),
});

/** How many streams of ticks somebody reads. */
export const readers = { count: 0 };

async function* counted(stream) {
  readers.count += 1;
  try {
    yield* stream;
  } finally {
    readers.count -= 1;
  }
}

async function* numbers(upto, everyMs) {
  for (let number = 0; number < upto; number += 1) {
    yield tick(number);
    await (everyMs ? setTimeout(everyMs) : setImmediate());
  }
}
