/** What a piece of code costs each time it runs, in steps: operations by their rough price, counted in the syntax tree. */
import { parseAst } from 'rolldown/parseAst'

/**
 * Steps of the nodes that do something as they run, in simple operations of compiled code. What is not here costs nothing: names, literals,
 * blocks, declarations.
 */
const STEPS: Readonly<Record<string, number>> = {
  AssignmentExpression: 1,
  BinaryExpression: 1,
  ConditionalExpression: 1,
  IfStatement: 1,
  LogicalExpression: 1,
  MemberExpression: 1,
  SwitchCase: 1,
  TryStatement: 1,
  UnaryExpression: 1,
  UpdateExpression: 1,
  // A call, whatever is called: a function of ours is counted besides, one of Node's or V8's is not.
  CallExpression: 10,
  ForInStatement: 10,
  ForOfStatement: 10,
  TaggedTemplateExpression: 10,
  // Memory for the collector.
  ArrayExpression: 30,
  ArrowFunctionExpression: 30,
  FunctionExpression: 30,
  ObjectExpression: 30,
  RestElement: 30,
  SpreadElement: 30,
  AwaitExpression: 60,
  NewExpression: 60,
  ThrowStatement: 60,
  YieldExpression: 60,
}

/** A template with something in it makes a string; one without is a literal. */
const TEMPLATE_STEPS = 100

/** `steps` are taken each time the code at `at` runs. */
export interface Weight {
  readonly at: number
  readonly steps: number
}

interface Node {
  readonly type: string
  readonly start: number
  readonly [key: string]: unknown
}

const isNode = (value: unknown): value is Node =>
  typeof value === 'object' && value !== null && typeof (value as Node).type === 'string'

/** Pure: the weights of a script, JavaScript as V8 was given it, in no order. */
export const weigh = (script: string): Weight[] => {
  const weights: Weight[] = []
  walk(parseAst(script) as unknown as Node, null, weights)
  return weights
}

const LOOPS: ReadonlySet<string> = new Set(['ForStatement', 'WhileStatement', 'DoWhileStatement'])

/** `loop`: where the body of the loop begins whose head this is. V8 counts how often a body runs, and not how often its head does. */
const walk = (node: Node, loop: number | null, weights: Weight[]): void => {
  const steps =
    node.type === 'TemplateLiteral' && (node['expressions'] as readonly Node[]).length > 0
      ? TEMPLATE_STEPS
      : (STEPS[node.type] ?? 0)
  // The closure is made where the function stands, and that is outside of its own range; a method is no closure of its own.
  if (steps > 0) weights.push({ at: loop ?? (isFunction(node) ? node.start - 1 : node.start), steps })
  const isLoop = LOOPS.has(node.type)
  for (const [key, value] of Object.entries(node)) {
    const isMethod = key === 'value' && node.type === 'MethodDefinition'
    const within = isLoop && (key === 'test' || key === 'update') ? (node['body'] as Node).start + 1 : loop
    for (const child of Array.isArray(value) ? value : [value]) {
      if (!isNode(child)) continue
      if (isMethod)
        for (const part of [...(child['params'] as Node[]), child['body'] as Node]) walk(part, null, weights)
      else walk(child, isFunction(child) ? loop : within, weights)
    }
  }
}

const isFunction = ({ type }: Node): boolean => type === 'ArrowFunctionExpression' || type === 'FunctionExpression'
