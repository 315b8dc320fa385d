// Runs one tool in the Node process of its call and says how it ended; the twin of harness.py.
// What it needs is taken before the tool is loaded, so that a tool that changes prototypes changes its own values alone.
import { readSync, writeSync } from 'node:fs';

const REQUEST = 3;
const RESULT = 4;
const TEXT_LIMIT = 8192;
const FORBIDDEN = { __proto__: null, EPERM: 1, EACCES: 1, EROFS: 1, ENOTFOUND: 1, EAI_AGAIN: 1 };
const HINT = 'Tools run isolated: no network, no other processes, no files of the host';

const { apply, getPrototypeOf } = Reflect;
const { parse, stringify } = JSON;
const { hasOwn, keys } = Object;
const { isArray } = Array;
const { isFinite } = Number;
const text = String;
const bytes = Buffer.from;
const allocate = Buffer.alloc;
const encodeURI = encodeURIComponent;
const resources = process.resourceUsage;
const reallyExit = process.reallyExit;
const map = Map.prototype;
const set = Set.prototype;
const method = (function_) => (self, ...given) => apply(function_, self, given);
const slice = method(String.prototype.slice);
const split = method(String.prototype.split);
const join = method(Array.prototype.join);
const subarray = method(Buffer.prototype.subarray);
const fill = method(Buffer.prototype.fill);
const decode = method(Buffer.prototype.toString);

class BadResult extends Error {
  name = 'BadResult';
}

function readAll() {
  let data = allocate(1 << 16);
  let size = 0;
  for (;;) {
    const count = readSync(REQUEST, data, size, data.length - size, null);
    if (count === 0) break;
    size += count;
    if (size === data.length) {
      const larger = allocate(data.length * 2);
      larger.set(data);
      fill(data, 0);
      data = larger;
    }
  }
  const all = decode(data, 'utf8', 0, size);
  fill(data, 0);
  return all;
}

function write(frame) {
  let rest = bytes(frame, 'utf8');
  while (rest.length > 0) {
    try {
      rest = subarray(rest, writeSync(RESULT, rest, 0, rest.length));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

function usage() {
  const used = apply(resources, process, []);
  return `[${(used.userCPUTime + used.systemCPUTime) / 1e6},${used.maxRSS * 1024}]`;
}

function textOf(value) {
  try {
    return slice(text(value), 0, TEXT_LIMIT);
  } catch {
    return '(its text cannot be had)';
  }
}

function read(value, name) {
  try {
    return value === null || value === undefined ? undefined : value[name];
  } catch {
    return undefined;
  }
}

const request = parse(readAll());
const location = `data:text/javascript;charset=utf-8,${encodeURI(request.source)}`;
const token = request.token;
let done = false;

function finish(body) {
  if (!done) {
    done = true;
    write(token + body);
  }
  apply(reallyExit, process, [0]);
}

function withoutLocation(given) {
  return join(split(given, location), '<tool>');
}

function fail(status, kind, message, traceback = '') {
  const parts = [status, kind, withoutLocation(message), traceback];
  for (let index = 0; index < parts.length; index += 1) parts[index] = stringify(textOf(parts[index]));
  finish(
    `{"status":${parts[0]},"kind":${parts[1]},"message":${parts[2]},"traceback":${parts[3]},"usage":${usage()}}`,
  );
}

/** Whether isolation is why: the error, one of those it holds, or what it came from, as far as twenty. */
function isForbidden(error, left = 20) {
  if (left <= 0 || error === null || typeof error !== 'object') return false;
  const code = read(error, 'code');
  if (typeof code === 'string' && FORBIDDEN[code] === 1) return true;
  const errors = read(error, 'errors');
  const first = isArray(errors) ? errors[0] : undefined;
  return isForbidden(first, left - 1) || isForbidden(read(error, 'cause'), left - 1);
}

/** The lines of a stack that lie in the tool. */
function frames(error) {
  const stack = read(error, 'stack');
  if (typeof stack !== 'string') return '';
  const lines = split(withoutLocation(stack), '\n');
  const kept = [];
  for (let index = 0; index < lines.length && kept.length < 20; index += 1) {
    if (split(lines[index], '<tool>').length > 1) kept[kept.length] = lines[index];
  }
  return join(kept, '\n');
}

function failOf(error) {
  if (error === null || typeof error !== 'object') {
    fail('TOOL_ERROR', 'Error', textOf(error));
    return;
  }
  const name = read(error, 'name');
  const kind = typeof name === 'string' && name !== '' ? name : 'Error';
  let message = textOf(read(error, 'message'));
  if (kind === 'RangeError' && split(message, 'allocat').length > 1) {
    fail('MEMORY', kind, 'the tool used up its memory');
    return;
  }
  const denied = isForbidden(error);
  if (denied) {
    const cause = read(read(error, 'cause'), 'message');
    message = `${message}${cause === undefined ? '' : `: ${textOf(cause)}`}. ${HINT}.`;
  }
  fail(denied ? 'DENIED' : 'TOOL_ERROR', kind, message, frames(error));
}

/** Refuses what JSON would leave out or write as null. */
function checked(key, value) {
  const kind = typeof value;
  if (kind === 'number' && !isFinite(value)) throw new BadResult(`${value} is not JSON`);
  if (kind === 'function' || kind === 'symbol' || kind === 'bigint') throw new BadResult(`a ${kind} is not JSON`);
  if (kind === 'object' && value !== null) {
    const parent = getPrototypeOf(value);
    if (parent === map || parent === set) throw new BadResult('a Map or a Set is not JSON; return an object or an array');
  }
  return value;
}

/** The agent's state as the tool sees it, with its blocks in both places that tools look for them. */
function stateOf(given) {
  const state = parse(given);
  const memory = state.memory ?? {};
  const blocks = state.blocks ?? memory.blocks ?? [];
  const before = { __proto__: null };
  for (let index = 0; index < blocks.length; index += 1) before[blocks[index].label] = blocks[index].value;
  return { state: { ...state, blocks, memory: { ...memory, blocks } }, blocks, before };
}

function changesOf(known) {
  const changed = { __proto__: null };
  let any = false;
  const { before, blocks } = known;
  for (let index = 0; index < blocks.length; index += 1) {
    const { label, value } = blocks[index];
    if (label in before && before[label] !== value) {
      changed[label] = value;
      any = true;
    }
  }
  return any ? stringify({ __proto__: null, blocks: changed }) : '{}';
}

function succeed(value, known) {
  let body;
  let changes = '{}';
  try {
    body = stringify(value === undefined ? null : value, checked);
    if (known !== undefined) changes = changesOf(known);
  } catch (error) {
    fail('BAD_RESULT', textOf(read(error, 'name')), `the result is not JSON: ${textOf(read(error, 'message'))}`);
    return;
  }
  if (body === undefined) {
    fail('BAD_RESULT', 'TypeError', 'the result is not JSON: its toJSON gives nothing');
    return;
  }
  const frame = `{"status":"SUCCESS","value":${body},"changes":${changes},"usage":${usage()}}`;
  if (frame.length > request.result_bytes + 200) {
    fail('OUTPUT_LIMIT', 'ResultTooLarge', `the result has ${frame.length} bytes, the limit is ${request.result_bytes}`);
    return;
  }
  finish(frame);
}

/** The arguments in the order of the parameters. Throws TypeError for what is missing or unknown. */
function ordered(given, signature, state) {
  const { names, required, as_object: asObject } = signature;
  const known = { __proto__: null };
  for (let index = 0; index < names.length; index += 1) known[names[index]] = 1;
  const given_ = keys(given);
  for (let index = 0; index < given_.length; index += 1) {
    if (known[given_[index]] !== 1) throw new TypeError(`unknown argument: ${given_[index]}`);
  }
  if (state !== undefined && known.agent_state === 1) given.agent_state = state;
  for (let index = 0; index < required.length; index += 1) {
    if (!hasOwn(given, required[index])) throw new TypeError(`missing argument: ${required[index]}`);
  }
  if (asObject) return [given];
  const list = [];
  for (let index = 0; index < names.length; index += 1) {
    list[index] = hasOwn(given, names[index]) ? given[names[index]] : undefined;
  }
  return list;
}

// A tool that floods its output waits for the reader, as one in Python does, instead of keeping it all in memory.
process.stdout._handle?.setBlocking(true);
process.stderr._handle?.setBlocking(true);
process.on('uncaughtException', failOf);
process.on('beforeExit', () => fail('TOOL_ERROR', 'Error', 'the tool waits for something that never happens'));
process.exit = (code) => fail('TOOL_ERROR', 'Exit', `the tool called process.exit(${textOf(code ?? 0)})`);

try {
  const environment = parse(stringify(request.environment));
  const names = keys(environment);
  for (let index = 0; index < names.length; index += 1) process.env[names[index]] = environment[names[index]];
  const known = request.agent_state === '' ? undefined : stateOf(request.agent_state);
  const given = parse(request.arguments);
  const tool = (await import(location))[request.function];
  if (typeof tool !== 'function') throw new ReferenceError(`the source defines no function ${request.function}`);
  succeed(await apply(tool, undefined, ordered(given, request.signature, known?.state)), known);
} catch (error) {
  failOf(error);
}
