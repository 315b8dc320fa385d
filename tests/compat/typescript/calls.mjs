// Makes calls of the unmodified TypeScript SDK: a JSON object a line in, with the path of a method and its arguments, one out.
import { createInterface } from 'node:readline';
import Letta, { toFile } from '@letta-ai/letta-client';

const client = new Letta({ baseURL: process.argv[2], apiKey: 'unused', maxRetries: 0 });

async function argument(value) {
  if (value === null || typeof value !== 'object') return value;
  if ('$file' in value) return toFile(Buffer.from(value.text), value.$file, { type: value.type });
  if (Array.isArray(value)) return Promise.all(value.map(argument));
  return Object.fromEntries(await Promise.all(Object.entries(value).map(async ([name, each]) => [name, await argument(each)])));
}

async function answered({ path, args }) {
  const names = path.split('.');
  const method = names.pop();
  const resource = names.reduce((place, name) => place[name], client);
  const value = await resource[method](...(await argument(args)));
  return value?.getPaginatedItems?.() ?? value;
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await answered(JSON.parse(line)).then(
    (value) => ({ value }),
    (error) => ({ error: { name: error.constructor.name, status: error.status ?? null, message: String(error.message) } }),
  );
  console.log(JSON.stringify(answer));
}
