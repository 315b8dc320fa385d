"""What runs the code of `run_code`, for each language: tools that take the code as data."""

PYTHON = """
import ast, contextlib, io, json, traceback

def run_code(code):
    scope = {"__name__": "__main__"}
    out, err = io.StringIO(), io.StringIO()
    results, error = [], None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            tree = ast.parse(code, "<code>")
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<code>", "exec"), scope)
            value = scope.get("result")
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "<code>", "eval"), scope)
            if value is not None:
                try:
                    json.dumps(value, allow_nan=False)
                except (TypeError, ValueError):
                    value = repr(value)
                results.append(value)
        except BaseException as raised:
            lines = traceback.format_exception(raised)
            error = {"name": type(raised).__name__, "value": str(raised), "traceback": "".join(lines)[-8000:]}
    logs = {"stdout": out.getvalue().splitlines(), "stderr": err.getvalue().splitlines()}
    return {"results": results, "logs": logs, **({"error": error} if error else {})}
"""

JAVASCRIPT = """
import { createRequire } from 'node:module';
import { format, inspect } from 'node:util';
import vm from 'node:vm';

function plain(value) {
  try {
    const text = JSON.stringify(value);
    if (text !== undefined && inspect(JSON.parse(text)) === inspect(value)) return JSON.parse(text);
  } catch {}
  return inspect(value);
}

async function evaluate(code) {
  const options = { filename: '<code>' };
  try {
    const value = await vm.runInThisContext(code, options);
    return value === undefined ? vm.runInThisContext('typeof result === "undefined" ? undefined : result') : value;
  } catch (error) {
    if (!(error instanceof SyntaxError) || !/await|return/.test(error.message)) throw error;
    return vm.runInThisContext(`(async () => {${code}\\n})()`, options);
  }
}

export async function run_code(code) {
  const logs = { stdout: [], stderr: [] };
  const into = (lines) => (...given) => lines.push(...format(...given).split('\\n'));
  globalThis.require = createRequire('/');
  for (const name of ['log', 'info', 'debug']) console[name] = into(logs.stdout);
  for (const name of ['error', 'warn', 'trace']) console[name] = into(logs.stderr);
  try {
    const value = await evaluate(code);
    return { results: value === undefined || value === null ? [] : [plain(value)], logs };
  } catch (error) {
    const { name = 'Error', message = String(error), stack = '' } = error ?? {};
    return { results: [], logs, error: { name, value: String(message), traceback: String(stack).slice(0, 8000) } };
  }
}
"""
