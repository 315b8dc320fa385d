// Reads lists through the pager of the unmodified TypeScript SDK: a JSON array of calls in, an array of lists of ids out.
import Letta from '@letta-ai/letta-client';

const [baseURL, calls] = process.argv.slice(2);
const client = new Letta({ baseURL, apiKey: 'unused', maxRetries: 0 });
const answers = [];
for (const { resource, args, params } of JSON.parse(calls)) {
  const found = resource.split('.').reduce((place, name) => place[name], client);
  const ids = [];
  for await (const item of found.list(...args, params)) {
    ids.push(item.id);
    if (ids.length > 1000) break; // a pager that goes round in circles
  }
  answers.push(ids);
}
console.log(JSON.stringify(answers));
